"""Rotary positions: the frequencies, and the rotation of heads."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mistral_mlx import kernels
from mistral_mlx.kernels import QueryScale, Rotation, native
from mistral_mlx.model.rope import inverse_frequencies, rotation

POSITIONS = [0, 1, 4095, 32768, 131072]


@pytest.fixture(params=["native", "mlx"])
def backend(request, monkeypatch):
    if request.param == "native" and not native.available:
        pytest.skip(f"no native kernels: {native.missing}")
    monkeypatch.setattr(native, "available", request.param == "native")
    return request.param


def angles(rotation, position):
    """Return cosines and sines as `kernels.rope` has them: heads of ones, then zeros, turn into just these."""
    half = len(rotation.frequencies)
    x = mx.concatenate([mx.ones((1, 1, 1, half)), mx.zeros((1, 1, 1, half))], axis=-1)
    return np.array(kernels.rope(x, rotation, offset=position)).reshape(2, half)


def exact(frequencies, position, factor=1.0):
    turned = [position * frequency for frequency in frequencies.tolist()]
    return np.array([[factor * f(angle) for angle in turned] for f in (math.cos, math.sin)]).astype(np.float32)


def test_frequencies_of_a_small_head():
    assert inverse_frequencies(4, 100.0).tolist() == [1.0, 0.1]


def test_a_base_near_zero_turns_without_end():
    assert inverse_frequencies(64, 5e-324)[-1] == math.inf


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
@pytest.mark.parametrize("head_dim", [2, 6, 64, 128])
@pytest.mark.parametrize("base", [1e4, 5e5, 1e6, 1e9])
def test_native_angles_are_those_of_float64(base, head_dim):
    """To the bit, as when the kernels computed ``position * base^(-2i / Dh)`` themselves."""
    for position in POSITIONS:
        expected = exact(np.array([base ** (-2.0 * i / head_dim) for i in range(head_dim // 2)]), position)
        assert (angles(rotation(head_dim, base), position) == expected).all()


def test_a_rotation_without_a_base_turns_by_its_frequencies(backend):
    frequencies = np.array([1.0, 0.25, 0.001])
    for position in (0, 1, 100):
        assert np.abs(angles(Rotation(frequencies), position) - exact(frequencies, position)).max() < 1e-5


def test_the_factor_multiplies_cosines_and_sines(backend):
    plain = rotation(8, 1e4)
    scaled = angles(plain._replace(factor=1.5), 3)
    assert np.abs(scaled - 1.5 * angles(plain, 3)).max() < 1e-6


def test_rotations_that_take_turns_do_not_mix(backend):
    first, second = rotation(8, 1e4), rotation(8, 1e6)
    alone = [angles(turned, 7) for turned in (first, second)]
    assert (np.stack([angles(turned, 7) for turned in (first, second)]) == np.stack(alone)).all()


@pytest.mark.parametrize("n", [1, 9])
def test_the_query_scale_counts_from_position_zero(backend, n):
    plain, scale = rotation(8, 1e4), QueryScale(0.1, 16)
    x = mx.random.normal((2, 3, n, 8), key=mx.random.key(0))
    for offset in (0, 15, 16, 4000):
        factors = [1 + 0.1 * math.log(1 + position // 16) for position in range(offset, offset + n)]
        expected = np.array(kernels.rope(x, plain, offset=offset)) * np.array(factors)[:, None]
        assert np.abs(np.array(kernels.rope(x, plain, scale, offset=offset)) - expected).max() < 1e-6


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
def test_heads_of_another_size_are_refused():
    with pytest.raises(ValueError, match="frequencies"):
        native.ext.rope(mx.ones((1, 1, 1, 6)), rotation(8, 1e4), offset=0)

"""Native packing: the same bits as `mx.quantize` for all weights, and the reported error."""

import subprocess
import sys
from collections.abc import Iterator

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_mlx import kernels
from mistral_mlx.kernels import native
from mistral_mlx.kernels.dtypes import MLX_DTYPES
from mistral_mlx.kernels.fallback import packing

pytestmark = pytest.mark.skipif(not native.built, reason=f"no native kernels: {native.missing}")

DTYPES = ["F32", "F16", "BF16"]
BITS = [2, 3, 4, 5, 6, 8]
EDGES = [65504, 65519, 65520, -65520, 6.1e-5, 5.96e-8, 2.98e-8, 8.9e-8, -6e-8, 3.4e38, 1e-45, 0.0, -0.0]
GUARDED = """
import ctypes, mmap
import numpy as np
from mistral_mlx.kernels import quantize
page = mmap.PAGESIZE
memory = mmap.mmap(-1, 2 * page)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + page), ctypes.c_size_t(page), 0) == 0
for stored, nbytes in ("F32", 4), ("F16", 2), ("BF16", 2):
    for columns in (32, 96, page // nbytes):
        rows = np.frombuffer(memory, np.uint8, columns * nbytes, page - columns * nbytes).reshape(1, -1)
        for bits in (2, 3, 4, 5, 6, 8):
            quantize(rows, stored, "F16", group_size=32, bits=bits)
print("read")
"""


def weights(*shape: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(shape).astype(np.float32)
    with np.errstate(over="ignore", under="ignore"):
        yield normal * np.float32(0.02)
        yield -np.abs(normal)
        yield np.abs(normal) + 1
        yield 1 + normal * np.float32(1e-7)  # the smallest step there is
        yield normal * np.float32(1e-7)
        yield normal * np.float32(1e-40)
        yield normal * np.float32(1e38)
        yield normal * (rng.random(shape) < 0.05)
        yield rng.integers(-8, 8, shape).astype(np.float32) / 2  # ties
        yield rng.choice(np.array(EDGES, np.float32), shape)
    for value in (*EDGES, -3.0, np.inf, -np.inf, np.nan):
        yield np.full(shape, value, np.float32)
    for value in (np.inf, -np.inf, np.nan):
        yield np.where(rng.random(shape) < 0.02, np.float32(value), normal)


def stored_as(weight: np.ndarray, dtype: str) -> np.ndarray:
    return packing.host(mx.array(weight).astype(MLX_DTYPES[dtype]))


def assert_as_mlx(rows: np.ndarray, stored: str, dtype: str, group_size: int, bits: int) -> None:
    found = kernels.quantize(rows, stored, dtype, group_size=group_size, bits=bits)
    with np.errstate(all="ignore"):
        expected = packing.quantize(rows, stored, dtype, group_size=group_size, bits=bits)
    for part, wanted in zip(found[:3], expected[:3], strict=True):
        assert np.array_equal(part, wanted)
    assert found.finite == expected.finite and found.largest == expected.largest


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("stored", DTYPES)
def test_bits_are_those_of_mlx(stored: str, dtype: str) -> None:
    for columns, group_size in ((32, 32), (192, 64), (1152, 128)):  # one part of a row, and two
        for weight in weights(3, columns):
            for bits in BITS:
                assert_as_mlx(stored_as(weight, stored), stored, dtype, group_size, bits)


@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=256, max_size=256), st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.sampled_from(BITS))
def test_bits_are_those_of_mlx_for_any_bits_that_come(content: bytes, stored: str, dtype: str, bits: int) -> None:
    rows = np.frombuffer(content, np.uint8).reshape(2, -1)
    assert_as_mlx(rows, stored, dtype, 32, bits)


def test_the_number_of_threads_changes_nothing() -> None:
    rows = stored_as(next(weights(37, 2176)), "BF16")
    before, results = native.ext.threads(), []
    try:
        for count in (1, 2, 5):
            native.ext.set_threads(count)
            found = kernels.quantize(rows, "BF16", "BF16", group_size=64, bits=4)
            results.append((*(part.tobytes() for part in found[:3]), *found[3:]))
    finally:
        native.ext.set_threads(before)
    assert results[0] == results[1] == results[2]


@pytest.mark.parametrize("stored", DTYPES)
def test_the_loss_is_that_of_float64(stored: str) -> None:
    rows = stored_as(next(weights(5, 2176)), stored)
    found = kernels.quantize(rows, stored, "BF16", group_size=64, bits=4)
    exact = packing.floats(packing.decode(rows, stored)).astype(np.float64)
    scales, biases = (packing.decode(part, "BF16").astype(mx.float32) for part in (found.scales, found.biases))
    unpacked = np.array(mx.dequantize(mx.array(found.weight.view("<u4")), scales, biases), np.float64)
    assert found.error == pytest.approx(((exact - unpacked) ** 2).sum(), rel=1e-5)
    assert found.norm == pytest.approx((exact**2).sum(), rel=1e-6)
    assert (found.largest, found.finite) == (np.abs(exact).max(), True)


@pytest.mark.skipif(sys.platform != "linux", reason="protection is asked for by Linux's numbers")
def test_nothing_is_read_behind_the_rows() -> None:
    child = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (0, "read\n"), child.stderr


def outputs(rows: int, *widths: int) -> list[np.ndarray]:
    return [np.full((rows + 2, width), 0xA5, np.uint8) for width in widths]


def test_nothing_is_written_beside_the_outputs() -> None:
    rows = stored_as(next(weights(3, 96)), "F32")
    for bits in BITS:
        weight, scales, biases = outputs(3, 96 * bits // 8, 6, 6)
        native.ext.quantize(
            rows, "F32", "F16", group_size=32, bits=bits, weight=weight[1:-1], scales=scales[1:-1], biases=biases[1:-1]
        )
        assert all((part[[0, -1]] == 0xA5).all() for part in (weight, scales, biases))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"group_size": 16}, "group_size"),
        ({"group_size": 64}, "whole number of groups"),
        ({"bits": 7}, "bits"),
        ({"bits": 8}, "do not fit"),
        ({"dtype": "F32"}, "do not fit"),
        ({"stored": "F64"}, "type"),
    ],
)
def test_what_does_not_fit_together_is_refused(changed: dict[str, object], message: str) -> None:
    weight, scales, biases = outputs(1, 48, 6, 6)
    arguments = {"rows": np.zeros((3, 384), np.uint8), "stored": "F32", "dtype": "F16", "group_size": 32, "bits": 4}
    with pytest.raises(ValueError, match=message):
        native.ext.quantize(**{**arguments, **changed}, weight=weight, scales=scales, biases=biases)

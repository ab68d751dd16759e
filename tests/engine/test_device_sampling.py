"""Sampling in MLX's operations, compared with the Sampler's NumPy."""

import mlx.core as mx
import numpy as np
import pytest

from mistral_mlx.errors import CheckpointError
from mistral_mlx.sampling import device
from mistral_mlx.sampling.options import SamplingOptions
from mistral_mlx.sampling.sampler import Sampler

RNG = np.random.default_rng(0)
ROWS = [mx.array(RNG.normal(scale=scale, size=700).astype(np.float32)) for scale in (0.1, 1, 4) for _ in range(12)]


@pytest.mark.parametrize(
    "sampling",
    [
        {"temperature": 0},
        {"top_p": 1},
        {"temperature": 1e-40},
        {"top_p": 0.8},
        {"top_p": 1e-6},
        {"top_p": 1, "min_p": 0.1},
        {"top_p": 0.99, "top_k": 5, "min_p": 0.2},
        {"top_p": 0.5, "top_k": 900},
    ],
)
def test_the_device_chooses_what_numpy_chooses(sampling):
    here, there = Sampler(seed=1, **sampling), Sampler(seed=1, **sampling)
    assert there.fits_device
    assert [there.choose_on_device(row).read() for row in ROWS] == [here(row, ()) for row in ROWS]


def test_top_k_alone_draws_from_the_k_likeliest():
    sampler, row = Sampler(top_k=3, top_p=1, temperature=5, seed=0), ROWS[0]
    drawn = {sampler.choose_on_device(row).read() for _ in range(60)}
    assert drawn == set(np.argsort(np.array(row))[-3:].tolist())


@pytest.mark.parametrize("sampling", [{"top_p": 1}, {"top_p": 0.9}])
@pytest.mark.parametrize("number", [0.0, 1 - 1e-16])
def test_a_banned_token_is_never_drawn(sampling, number):
    row = mx.where((mx.arange(700) < 5) | (mx.arange(700) > 690), -mx.inf, ROWS[0])
    assert 5 <= int(device.choose(row, SamplingOptions(**sampling), number)) <= 690


@pytest.mark.parametrize(("place", "damage"), [(3, np.nan), (3, np.inf), (slice(None), -np.inf)])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_finite_are_refused(place, damage, temperature):
    row = np.array(ROWS[0])
    row[place] = damage
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        Sampler(temperature=temperature).choose_on_device(mx.array(row)).read()


@pytest.mark.parametrize(
    ("sampling", "fits"),
    [
        ({}, True),
        ({"repetition_context_size": 5, "xtc_threshold": 0.3, "dry_base": 2.0}, True),
        ({"frequency_penalty": 0.1}, False),
        ({"typical_p": 0.9}, False),
        ({"top_n_sigma": 1.0}, False),
        ({"dry_multiplier": 0.8}, False),
        ({"logit_bias": {1: 2.0}}, False),
    ],
)
def test_only_options_that_change_something_decide(sampling, fits):
    assert Sampler(**sampling).fits_device is fits


def test_a_number_given_back_is_the_next_one():
    here, there = Sampler(top_p=1, seed=4), Sampler(top_p=1, seed=4)
    unused = [there.choose_on_device(ROWS[0]) for _ in range(3)]
    for choice in reversed(unused):
        there.give_back(choice)
    assert [there(row, ()) for row in ROWS] == [here(row, ()) for row in ROWS]

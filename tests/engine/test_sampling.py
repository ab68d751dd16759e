"""The sampler: each filter by hand, their order, and what a seed guarantees."""

import math

import mlx.core as mx
import numpy as np
import pytest

from mistral_mlx.errors import CheckpointError, OptionError
from mistral_mlx.sampling.filters import keep_min_p, keep_top_k, keep_top_p
from mistral_mlx.sampling.penalties import penalize
from mistral_mlx.sampling.sampler import Sampler

P = np.array([2, 6, 1, 4, 3], np.float32) / 16
IDS = np.arange(5)


def draws(sampler, logits, n=2000):
    logits = mx.array(np.asarray(logits, np.float32))
    return np.bincount([sampler(logits, []) for _ in range(n)], minlength=logits.size) / n


def test_temperature_zero_is_the_argmax():
    logits = mx.random.normal((1000,), key=mx.random.key(0))
    assert Sampler(temperature=0)(logits, []) == int(mx.argmax(logits))


def test_top_k_keeps_the_likeliest():
    ids, weights = keep_top_k(IDS, P, 2)
    assert dict(zip(ids.tolist(), weights.tolist(), strict=True)) == {1: P[1], 3: P[3]}
    assert keep_top_k(IDS, P, 9)[0].tolist() == IDS.tolist()


@pytest.mark.parametrize(
    ("p", "kept"), [(0.01, [1]), (0.375, [1]), (0.38, [1, 3]), (0.625, [1, 3]), (0.9, [1, 3, 4, 0])]
)
def test_top_p_keeps_the_fewest_that_reach_p(p, kept):
    assert keep_top_p(IDS, P, p)[0].tolist() == kept


def test_top_p_is_right_when_more_than_a_handful_are_needed():
    weights = np.random.default_rng(0).random(5000).astype(np.float32)
    ids, kept = keep_top_p(np.arange(5000), weights, 0.5)
    order = np.argsort(-weights, kind="stable")
    n = int(np.searchsorted(np.cumsum(weights[order], dtype=np.float64), 0.5 * weights.sum(dtype=np.float64))) + 1
    assert sorted(ids.tolist()) == sorted(order[:n].tolist())
    assert kept.sum() >= 0.5 * weights.sum() * (1 - 1e-6)


def test_min_p_is_relative_to_the_likeliest():
    assert keep_min_p(IDS, P, 0.5)[0].tolist() == [1, 3, 4]


def test_repetition_penalty_makes_both_signs_less_likely():
    row = np.array([2.0, -2.0, 1.0], np.float32)
    assert penalize(row, [0, 1, 1], 2.0).tolist() == [1.0, -4.0, 1.0]
    assert row.tolist() == [2.0, -2.0, 1.0]


def test_repetition_penalty_looks_back_64_tokens():
    sampler, logits = Sampler(temperature=0, repetition_penalty=10.0), mx.array([3.0, 1.0, 0.0])
    assert sampler(logits, [0] + [2] * 63) == 1
    assert sampler(logits, [0] + [2] * 64) == 0


def test_draws_follow_the_distribution():
    frequencies = draws(Sampler(temperature=1, top_p=1, seed=0), np.log(P))
    np.testing.assert_allclose(frequencies, P, atol=0.04)


def test_temperature_comes_before_top_p():
    """At temperature 0.5 the first has 36 of 66 and top-p 0.5 keeps it alone; after it, two."""
    frequencies = draws(Sampler(temperature=0.5, top_p=0.5, seed=0), np.log(P), n=200)
    assert frequencies.tolist() == [0, 1, 0, 0, 0]


def test_top_k_comes_before_top_p():
    """The first has 6 of the 10 that two share, so top-p 0.55 keeps it alone; of all 16, two."""
    frequencies = draws(Sampler(temperature=1, top_k=2, top_p=0.55, seed=0), np.log(P), n=200)
    assert frequencies.tolist() == [0, 1, 0, 0, 0]


def test_min_p_comes_after_top_p():
    """Top-p 0.9 keeps 6, 4, 3 and 2 of 16; of these, min-p 0.6 keeps 6 and 4."""
    frequencies = draws(Sampler(temperature=1, top_p=0.9, min_p=0.6, seed=0), np.log(P))
    np.testing.assert_allclose(frequencies, [0, 0.6, 0, 0.4, 0], atol=0.04)


def test_the_draw_is_from_the_penalized_logits():
    sampler = Sampler(temperature=1, top_p=1, repetition_penalty=1e9, seed=0)
    assert {sampler(mx.array([5.0, 1.0, 0.5]), [0, 1]) for _ in range(50)} == {0, 1, 2}


@pytest.mark.parametrize("offset", [1000.0, -1000.0])
def test_large_logits_do_not_overflow(offset):
    frequencies = draws(Sampler(temperature=1, top_p=1, seed=0), np.log(P) + offset)
    np.testing.assert_allclose(frequencies, P, atol=0.04)


@pytest.mark.parametrize("temperature", [1e-50, 1e-8])
def test_a_tiny_temperature_is_nearly_the_argmax(temperature):
    """A temperature that is 0 in float32 used to divide 0 by 0."""
    assert draws(Sampler(temperature=temperature, seed=0), np.log(P), n=20).tolist() == [0, 1, 0, 0, 0]


def test_the_same_seed_draws_the_same_and_another_does_not():
    logits = mx.zeros((1000,))

    def ids(seed):
        sampler = Sampler(temperature=1, seed=seed)
        return [sampler(logits, []) for _ in range(20)]

    assert ids(1) == ids(1) != ids(2)
    assert ids(None) != ids(None)


def test_the_random_seed_that_was_chosen_repeats_the_draws():
    first, logits = Sampler(temperature=1), mx.zeros((1000,))
    again = Sampler(temperature=1, seed=first.seed)
    assert [first(logits, []) for _ in range(5)] == [again(logits, []) for _ in range(5)]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_not_finite_are_an_error(bad, temperature):
    with pytest.raises(CheckpointError, match="NaN"):
        Sampler(temperature=temperature)(mx.array([0.0, bad, 1.0]), [])


@pytest.mark.parametrize(
    "options",
    [
        {"temperature": -0.1},
        {"temperature": math.nan},
        {"temperature": math.inf},
        {"top_p": 0},
        {"top_p": 1.1},
        {"top_p": math.nan},
        {"top_k": -1},
        {"min_p": -0.1},
        {"min_p": 1.5},
        {"repetition_penalty": 0},
        {"seed": -1},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        Sampler(**options)

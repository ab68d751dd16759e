"""Every filter, penalty and bias against its definition in plain Python."""

import math
import random

import mlx.core as mx
import numpy as np
import pytest

from mistral_mlx.errors import OptionError
from mistral_mlx.sampling.filters import (
    cut_top_n_sigma,
    exclude_top_choices,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    keep_typical_p,
)
from mistral_mlx.sampling.penalties import add_bias, penalize
from mistral_mlx.sampling.sampler import Sampler

SEEDS = range(12)


def distribution(seed):
    """Return ids and probabilities: of five tokens or of hundreds, peaked or nearly flat."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=(5, 700)[seed % 2]) * (0.1, 1, 4)[seed % 3]
    probs = np.exp(logits - logits.max()).astype(np.float32)
    return rng.permutation(len(probs)), probs


def plain(ids, probs):
    total = math.fsum(map(float, probs))
    return [(float(p) / total, int(i)) for i, p in zip(ids, probs, strict=True)]


def fewest(ordered, p):
    kept, mass = set(), 0.0
    for q, token in ordered:
        kept.add(token)
        mass += q
        if mass >= p:
            break
    return kept


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
def test_top_p(seed, p):
    ids, probs = distribution(seed)
    expected = fewest(sorted(plain(ids, probs), reverse=True), p)
    assert set(keep_top_p(ids, probs, p)[0].tolist()) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("p", [0.01, 0.5, 0.9, 0.999])
def test_typical_p(seed, p):
    ids, probs = distribution(seed)
    tokens = plain(ids, probs)
    entropy = -math.fsum(q * math.log(q) for q, _ in tokens)
    expected = fewest(sorted(tokens, key=lambda token: abs(-math.log(token[0]) - entropy)), p)
    assert set(keep_typical_p(ids, probs, p)[0].tolist()) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("k", [1, 3, 50])
def test_top_k(seed, k):
    ids, probs = distribution(seed)
    expected = {token for _, token in sorted(plain(ids, probs), reverse=True)[:k]}
    assert set(keep_top_k(ids, probs, k)[0].tolist()) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("p", [0.05, 0.5, 1.0])
def test_min_p(seed, p):
    ids, probs = distribution(seed)
    tokens = plain(ids, probs)
    expected = {token for q, token in tokens if q >= p * max(tokens)[0]}
    assert set(keep_min_p(ids, probs, p)[0].tolist()) == expected


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("threshold", [0.001, 0.01, 0.1, 0.4])
def test_xtc(seed, threshold):
    ids, probs = distribution(seed)
    tokens = sorted(plain(ids, probs), reverse=True)
    above = [token for q, token in tokens if q >= threshold]
    expected = {token for _, token in tokens} - set(above[:-1])
    kept, kept_probs = exclude_top_choices(ids, probs, threshold)
    assert set(kept.tolist()) == expected
    assert dict(zip(ids, probs, strict=True)).items() >= dict(zip(kept, kept_probs, strict=True)).items()


def test_top_n_sigma_by_hand():
    """The mean of 4, 2, 0 and 2 is 2, their standard deviation the root of 2; a banned token does not count."""
    logits = np.array([4, 2, -np.inf, 0, 2], np.float32)
    assert cut_top_n_sigma(logits, 1.5).tolist() == [4, 2, -np.inf, -np.inf, 2]
    assert cut_top_n_sigma(logits, 1.4).tolist() == [4, -np.inf, -np.inf, -np.inf, -np.inf]
    assert cut_top_n_sigma(logits, 3).tolist() == logits.tolist()


@pytest.mark.parametrize("temperature", [0.01, 1, 100])
def test_top_n_sigma_keeps_the_same_tokens_at_every_temperature(temperature):
    logits = mx.array([4.0, 2.0, 0.0, 2.0, 3.9])  # the highest minus one deviation is 2.5
    sampler = Sampler(temperature=temperature, top_p=1, top_n_sigma=1, seed=0)
    assert {sampler(logits, ()) for _ in range(100)} <= {0, 4}


def test_probabilities_of_nothing_are_no_trouble():
    probs = np.array([0, 1, 0, 1e-42, 1e-30], np.float32)
    assert keep_typical_p(np.arange(5), probs, 0.9)[0].tolist() == [1]
    assert keep_top_p(np.arange(5), probs, 1 - 1e-12)[0].tolist() == [1]
    assert len(keep_top_p(np.arange(4000), np.full(4000, 0.25, np.float32), 0.5)[0]) == 2000


@pytest.mark.parametrize("seed", SEEDS)
def test_penalties(seed):
    rng = random.Random(seed)
    row = [rng.uniform(-3, 3) for _ in range(8)]
    recent = rng.choices(range(6), k=rng.randrange(1, 12))
    expected = list(row)
    for token in set(recent):
        value = expected[token] / 1.3 if expected[token] > 0 else expected[token] * 1.3
        expected[token] = value - recent.count(token) * 0.25 - 0.5
    changed = penalize(np.array(row, np.float32), recent, 1.3, 0.25, 0.5)
    np.testing.assert_allclose(changed, expected, rtol=1e-5)


def test_logit_bias_adds_and_bans():
    row = np.array([1.0, 2.0, 3.0], np.float32)
    assert add_bias(row, {0: 1.5, 2: -math.inf}).tolist() == [2.5, 2.0, -math.inf]
    assert row.tolist() == [1.0, 2.0, 3.0]
    assert Sampler(temperature=0, logit_bias={2: -math.inf})(mx.array(row), []) == 1
    drawn = {Sampler(temperature=9, top_p=1, logit_bias={2: -math.inf}, seed=s)(mx.array(row), []) for s in range(40)}
    assert drawn == {0, 1}


def test_a_sampler_without_an_id_never_chooses_it_and_draws_as_before():
    row = mx.array([0.0, 1.0, 2.0])
    sampler = Sampler(temperature=9, top_p=1, logit_bias={2: 50.0, 0: -math.inf}, seed=1)
    assert sampler.without([]) is sampler
    assert {sampler.without([2])(row, []) for _ in range(40)} == {1} and sampler(row, []) == 2
    one, other = Sampler(seed=3), Sampler(seed=3)
    assert [one.without([7])(mx.zeros((8,)), []) < 7, one(row, [])] == [other(mx.zeros((7,)), []) < 7, other(row, [])]


def test_logit_bias_of_a_token_that_is_not_there_and_a_ban_of_all_are_errors():
    with pytest.raises(OptionError, match="token 3; the vocabulary has 3"):
        Sampler(logit_bias={3: 1})(mx.zeros((3,)), [])
    with pytest.raises(OptionError, match="bans every token"):
        Sampler(logit_bias={0: -math.inf, 1: -math.inf})(mx.zeros((2,)), [])


@pytest.mark.parametrize(
    "options",
    [
        {"typical_p": 0},
        {"xtc_probability": 1.1},
        {"xtc_threshold": 0},
        {"repetition_context_size": -2},
        {"presence_penalty": math.nan},
        {"frequency_penalty": math.inf},
        {"logit_bias": {1: math.inf}},
        {"logit_bias": {1: math.nan}},
        {"dry_multiplier": -1},
        {"dry_base": 0.5},
        {"dry_allowed_length": -1},
        {"dry_penalty_last_n": -2},
        {"dry_sequence_breakers": ["a", ""]},
    ],
    ids=str,
)
def test_options_out_of_range_are_refused_by_name(options):
    with pytest.raises(OptionError, match=next(iter(options)).removesuffix("s")):
        Sampler(**options)

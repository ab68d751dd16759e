"""Every filter and penalty against its definition in plain Python; and their order."""

import math
import random

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import LetterTokenizer, tiny_model

from mistral_mlx.errors import OptionError
from mistral_mlx.generation.stream import generate, generate_step
from mistral_mlx.sampling.dry import dry_penalties, n_since_breaker, repeat_lengths
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

LETTERS = "abc,.\n"
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


def slow_dry(text, *, allowed_length, multiplier, base, breakers):
    """Return what each letter that may follow `text` is to lose."""
    since = max([text.rfind(b) + len(b) for b in breakers if b in text], default=0)
    penalties = {}
    for at in range(len(text)):
        n = 0
        while at - 1 - n >= 0 and len(text) - 1 - n >= since and text[at - 1 - n] == text[len(text) - 1 - n]:
            n += 1
        token = text[at]
        if n >= max(1, allowed_length) and not any(b in token for b in breakers):
            penalties[token] = max(penalties.get(token, 0), multiplier * base ** (n - allowed_length))
    return penalties


@pytest.mark.parametrize("seed", range(60))
@pytest.mark.parametrize("breakers", [(), ("\n",), (".", ",\n", "ab,")], ids=repr)
def test_dry(seed, breakers):
    rng = random.Random(seed)
    text = "".join(rng.choices(LETTERS, k=rng.randrange(1, 40)))
    settings = {"allowed_length": seed % 4, "multiplier": 0.8, "base": 1.75, "breakers": breakers}
    expected = slow_dry(text, **settings)
    got = dry_penalties([LETTERS.index(c) for c in text], piece_of=LETTERS.__getitem__, **settings)
    assert {LETTERS[token]: value for token, value in got.items()} == pytest.approx(expected)


def test_dry_by_hand():
    ids = [*b"abcdabc"]
    settings = {"multiplier": 1.0, "base": 2.0, "allowed_length": 2, "piece_of": chr}
    assert dry_penalties(ids, breakers=(), **settings) == {ord("d"): 2.0}
    assert dry_penalties(ids, breakers=("a",), **settings) == {ord("d"): 1.0}
    assert dry_penalties(ids, breakers=("c",), **settings) == {}
    assert dry_penalties(ids, breakers=("d",), **settings) == {}
    assert repeat_lengths(ids, 2) == {ord("d"): 2}


def test_a_breaker_may_lie_across_tokens_of_several_letters():
    pieces = ["one", "two\nUs", "er", ": x", "y", ""]
    assert n_since_breaker([0, 1, 2, 3, 5, 4], ["\nUser:"], pieces.__getitem__, at_most=99) == 2
    assert n_since_breaker([0, 1, 2, 3, 4], ["\nUser"], pieces.__getitem__, at_most=99) == 2
    assert n_since_breaker([0, 1, 2, 3, 4], ["\n"], pieces.__getitem__, at_most=99) == 3
    assert n_since_breaker([0, 1, 2, 3, 4], ["three"], pieces.__getitem__, at_most=99) == 5
    assert n_since_breaker([0, 1, 2, 3, 4], ["three"], pieces.__getitem__, at_most=2) == 2


def test_dry_neither_overflows_nor_takes_long_in_a_text_that_says_one_thing():
    penalties = dry_penalties(
        [7] * 3000, multiplier=1e30, base=1.75, allowed_length=2, breakers=("\n",), piece_of=lambda token: "x"
    )
    assert penalties[7] < math.inf
    logits = mx.zeros((9,))
    assert Sampler(temperature=0, dry_multiplier=1e30, dry_sequence_breakers=())(logits, [0] * 3000) == 1


def test_a_bound_sampler_reads_breakers_in_the_tokenizers_text():
    tokenizer, logits = LetterTokenizer(), mx.array([0.0] * 6 + [2.0, 1.9] + [0.0] * 56)
    sampler = Sampler(temperature=0, dry_multiplier=1.0).bound(tokenizer)
    assert sampler(logits, tokenizer.encode("bca\nbc")) == tokenizer.encode("b")[0]
    assert sampler(logits, tokenizer.encode("bca\n bc")) == tokenizer.encode("b")[0]
    assert sampler(logits, tokenizer.encode("bca\nc")) == tokenizer.encode("a")[0]


def test_breakers_without_a_tokenizer_are_refused():
    """generate_step used to go on without any breaker."""
    model, _ = tiny_model()
    with pytest.raises(OptionError, match=r"no tokenizer .* sampler\.bound\(tokenizer\)"):
        list(generate_step([7, 8], model, sampler=Sampler(dry_multiplier=1.0)))
    unbroken = Sampler(temperature=0, dry_multiplier=1.0, dry_sequence_breakers=())
    assert len(list(generate_step([7, 8], model, sampler=unbroken, max_tokens=3))) == 3


def test_generation_leaves_the_callers_sampler_as_it_is_and_draws_from_it():
    """The tokenizer of the last answer used to stay in the sampler."""
    model, _ = tiny_model()
    sampler, tokenizer = Sampler(seed=3, dry_multiplier=1.0), LetterTokenizer()
    first, second = (generate(model, tokenizer, "abc", sampler=sampler, max_tokens=9) for _ in range(2))
    assert first != second
    with pytest.raises(OptionError, match="no tokenizer"):
        sampler(mx.zeros((64,)), [7])


# Bias


def test_logit_bias_adds_and_bans():
    row = np.array([1.0, 2.0, 3.0], np.float32)
    assert add_bias(row, {0: 1.5, 2: -math.inf}).tolist() == [2.5, 2.0, -math.inf]
    assert row.tolist() == [1.0, 2.0, 3.0]
    assert Sampler(temperature=0, logit_bias={2: -math.inf})(mx.array(row), []) == 1
    drawn = {Sampler(temperature=9, top_p=1, logit_bias={2: -math.inf}, seed=s)(mx.array(row), []) for s in range(40)}
    assert drawn == {0, 1}


def test_logit_bias_of_a_token_that_is_not_there_and_a_ban_of_all_are_errors():
    with pytest.raises(OptionError, match="token 3; the vocabulary has 3"):
        Sampler(logit_bias={3: 1})(mx.zeros((3,)), [])
    with pytest.raises(OptionError, match="bans every token"):
        Sampler(logit_bias={0: -math.inf, 1: -math.inf})(mx.zeros((2,)), [])


# The order of all


def choices(logits, history=(), n=60, **options):
    logits = mx.array(np.asarray(logits, np.float32))
    return {Sampler(**{"temperature": 1, "top_p": 1, **options}, seed=seed)(logits, history) for seed in range(n)}


def test_bias_comes_before_the_repetition_penalty():
    """1 + 3 halved is 2, less than 2.5; the other way round 0.5 + 3 would be more."""
    assert choices([1.0, 2.5], [0], temperature=0, logit_bias={0: 3.0}, repetition_penalty=2.0) == {1}


def test_the_repetition_penalty_comes_before_presence():
    """4 halved less 1 is 1, less than 1.2; (4 - 1) halved would be more."""
    assert choices([4.0, 1.2], [0], temperature=0, repetition_penalty=2.0, presence_penalty=1.0) == {1}


def test_dry_and_penalties_hold_for_the_likeliest_token_too():
    assert choices(
        [1.0, 0.9], [1, 0, 1], temperature=0, dry_multiplier=0.2, dry_sequence_breakers=(), dry_allowed_length=1
    ) == {1}
    assert choices([1.0, 0.9], [0, 0, 1], temperature=0, frequency_penalty=0.11) == {1}


def test_temperature_comes_before_typical_p():
    """Of 8, 4, 2, 1, 1 of 16 (1.88 bits) the second is typical; at temperature 0.25 the first has nearly all."""
    logits = np.log([8, 4, 2, 1, 1])
    assert choices(logits, typical_p=0.2) == {1}
    assert choices(logits, typical_p=0.2, temperature=0.25) == {0}


def test_top_k_comes_before_typical_p():
    """Of 8 and 4 alone (0.92 bits) the first is the nearer one."""
    assert choices(np.log([8, 4, 2, 1, 1]), typical_p=0.2, top_k=2) == {0}


def test_typical_p_comes_before_top_p():
    """Typical-p 0.2 keeps 4 of 16 alone; top-p 0.5 would keep 8 alone."""
    assert choices(np.log([8, 4, 2, 1, 1]), typical_p=0.2, top_p=0.5) == {1}


def test_xtc_comes_after_min_p():
    """Of 16, three are above 0.17 and the last of them stays; of the two that min-p keeps, the second does."""
    assert choices(np.log([8, 4, 3, 1]), xtc_probability=1, xtc_threshold=0.17) == {2, 3}
    assert choices(np.log([8, 4, 3, 1]), xtc_probability=1, xtc_threshold=0.17, min_p=0.4) == {1}


def test_xtc_is_done_as_often_as_it_says():
    logits = mx.array(np.log([5.0, 4.0, 1.0]).astype(np.float32))
    sampler = Sampler(temperature=1, top_p=1, xtc_probability=0.5, xtc_threshold=0.3, seed=0)
    n = sum(sampler(logits, []) == 0 for _ in range(4000))
    assert n / 4000 == pytest.approx(0.25, abs=0.03)


def test_the_penalties_look_back_as_far_as_they_are_told():
    logits, history = mx.array([1.0, 0.9]), [0] + [1] * 100
    for options, expected in (({"repetition_context_size": 101}, 1), ({"repetition_context_size": -1}, 1)):
        assert Sampler(temperature=0, presence_penalty=0.5, **options)(logits, [0]) == expected
    sampler = {n: Sampler(temperature=0, frequency_penalty=0.5, repetition_context_size=n) for n in (0, 3, -1)}
    assert [sampler[n](logits, [0, 0, 0]) for n in (0, 3, -1)] == [0, 1, 1]
    assert sampler[3](logits, history) == 0
    assert (
        Sampler(temperature=0, dry_multiplier=1.0, dry_sequence_breakers=(), dry_penalty_last_n=3)(
            logits, [1, 0, 5, 1, 0, 5, 1]
        )
        == 0
    )


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

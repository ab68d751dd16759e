"""The DRY penalty against its definition in plain Python, and its sequence breakers."""

import math
import random

import mlx.core as mx
import pytest
from helpers.models import LetterTokenizer, tiny_model

from mistral_mlx.errors import OptionError
from mistral_mlx.generation.stream import generate, generate_step
from mistral_mlx.sampling.dry import dry_penalties, n_since_breaker, repeat_lengths
from mistral_mlx.sampling.sampler import Sampler

LETTERS = "abc,.\n"


def slow_dry(text, *, allowed_length, multiplier, base, breakers):
    """Return what each letter that may follow `text` is to lose."""
    since = max([text.rfind(b) + len(b) for b in breakers if b in text], default=0)
    penalties = {}
    for at in range(len(text)):
        n = 0
        while at - 1 - n >= 0 and len(text) - 1 - n >= since and text[at - 1 - n] == text[len(text) - 1 - n]:
            n += 1
        token = text[at]
        if at and n >= allowed_length and not any(b in token for b in breakers):
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

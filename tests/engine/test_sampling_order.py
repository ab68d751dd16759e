"""The order of the filters and penalties, and how far back the penalties look."""

import mlx.core as mx
import numpy as np
import pytest

from mistral_mlx.sampling.sampler import Sampler


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

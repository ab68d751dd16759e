"""Processes that share a model come to the logits and the tokens of one: every kind of weights, cache and text."""

from functools import cache
from typing import NamedTuple

import numpy as np
import pytest
from helpers.shared_jobs import CLOSE, CLOSE_IN_16_BITS, assert_close, outcomes
from helpers.shared_models import MODELS

pytestmark = [pytest.mark.distributed, pytest.mark.cpu]

LONG = {"n_prompt": 250, "n_steps": 25, "step_size": 64}  # more than two turns of the ring for a window of 8
SHORT = {"n_prompt": 150, "n_steps": 9, "step_size": 7}
GIVEN = {name: (name, "forced", LONG) for name in MODELS if name != "experts fused"} | {
    "sinks": ("float16, no window", "forced", SHORT, {"window": 20, "sinks": 4}),
    "keys in 8 bits": ("windows of layers", "forced", SHORT, {"kv_bits": 8}),
    "all of these": ("float32", "forced", SHORT, {"window": 5, "sinks": 4, "kv_bits": 8}),
}
EXPERTS_FUSED = {"experts fused": ("experts fused", "forced", SHORT)}
ROUNDED = {"rounded to 8 bits": ("4 bits", "forced", SHORT, {"exact": False})}
FLOAT32 = {"float32", "windows of layers", "yarn, scaled queries", "experts", "every position"}
EVERY = {"every position": ("windows of layers", "every_position", {"n": 400, "sizes": [1, 17, 3, 200]})}
TOGETHER = {"together": ("windows of layers", "together", {"n": 40})}
CHOSEN = {
    "greedy": ("float32", "greedy", {"n_prompt": 260, "n": 30, "step_sizes": [7, 64, 512]}),
    "goes back": ("float32", "goes_back", {}),
    "forks": ("windows of layers", "forks", {}),
    "drafts": ("float32", "drafts", {}),
    "measured": ("windows of layers", "measured", {"depth": 300}),
    "stopped by an error": ("float32", "stopped", {"at": 3, "by": "ValueError"}),
    "stopped by an interrupt": ("windows of layers", "stopped", {"at": 3, "by": "KeyboardInterrupt"}),
    "stopped by a signal": ("windows of layers", "stopped", {"at": 2, "by": "signal"}),
}
COUNTED = {"many texts": ("float32", "many_texts", {"n": 6})}
FEW = {name: GIVEN[name] for name in ("float32", "8 bits, tied", "mixed bits", "experts in 4 bits", "all of these")} | {
    name: CHOSEN[name] for name in ("goes back", "drafts", "stopped by an interrupt")
}
JOBS = GIVEN | ROUNDED | EVERY | TOGETHER | CHOSEN | COUNTED


class Way(NamedTuple):
    """How processes share a model, and what they do with it."""

    n: int
    same_bits: bool  # they have whole layers: nothing is summed in another order
    jobs: dict[str, tuple]


WAYS = {
    "tensor 2": Way(2, False, JOBS),
    "tensor 4": Way(4, False, FEW),
    "pipeline 2": Way(2, True, JOBS | EXPERTS_FUSED),
    "pipeline 3": Way(3, True, FEW),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return a function that does the jobs of a way when they are first asked for."""
    folder = tmp_path_factory.mktemp("models")

    @cache
    def outcomes_of(way):
        n, pipeline, jobs = WAYS[way]
        return outcomes(n, folder, jobs, pipeline=pipeline)

    return outcomes_of


def told_by(*names):
    """Run a test with each way and each job of these names that it has."""
    pairs = [(way, name) for way in WAYS for name in names if name in WAYS[way].jobs]
    return pytest.mark.parametrize(("way", "name"), pairs)


@told_by(*GIVEN, *EXPERTS_FUSED, *ROUNDED, *EVERY)
def test_logits_of_a_given_text(done, way, name):
    shared, alone, ranks = done(way)[name]
    assert shared.shape == alone.shape
    if WAYS[way].same_bits:
        np.testing.assert_array_equal(shared, alone)
    elif name in ROUNDED:  # of the inputs that a process has, by themselves
        assert np.abs(shared - alone).mean() < 0.05 * np.abs(alone).mean()
    else:
        assert_close(shared, alone, CLOSE if name in FLOAT32 else CLOSE_IN_16_BITS)
    assert [rank["status"] for rank in ranks[1:]] == [7] * (len(ranks) - 1)


@told_by(*CHOSEN)
def test_tokens_that_were_chosen(done, way, name):
    shared, alone, _ = done(way)[name]
    assert shared == alone


@told_by(*TOGETHER)
def test_texts_of_different_lengths_go_on_together(done, way, name):
    shared, alone, _ = done(way)[name]
    for ours, expected in zip(shared, alone, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=0 if WAYS[way].same_bits else CLOSE)


@told_by(*COUNTED)
def test_a_text_that_nobody_goes_on_with_costs_the_others_no_memory(done, way, name):
    for rank in done(way)[name].ranks[1:]:
        assert max(rank["counts"]) <= 2
        assert rank["counts"][-1] == 0  # before the cache of the last text is made


@told_by("float32")
def test_each_has_its_part_of_the_bytes(done, way, name):
    pipeline, ranks, n_layers = WAYS[way].same_bits, done(way)[name].ranks, 3
    layers = [i for rank in ranks for i in rank["layers"]]
    assert layers == list(range(n_layers)) * (1 if pipeline else len(ranks))
    total = sum(rank["nbytes"] for rank in ranks)
    for rank in ranks:
        part = len(rank["layers"]) / n_layers if pipeline else 1 / len(ranks)
        assert rank["nbytes"] == pytest.approx(part * total, rel=0.35)  # 5 groups of hidden units over 4

"""Drafts change no token: answers with them are answers without, in every state that an answer can be left in."""

import os
from dataclasses import replace

import pytest
from helpers.answers import TOKENIZER, Case, tiny_models, told
from helpers.models import interrupting, tiny_model

from mistral_mlx import kernels
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.draft_model import DraftModel
from mistral_mlx.generation.drafts import MAX_DRAFT, MAX_MISSES, PAUSE, SHORT_DRAFT, TRUSTED, NGramDrafts
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.kernels import native
from mistral_mlx.model.cache import RollingBufferCache
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.session.saved_cache import read_cache, write_cache

pytestmark = pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")

N_CASES = int(os.environ.get("DRAFT_CASES", "200"))  # of each property


class Guesses:
    """Drafts of any length: some true tokens, then wrong ones."""

    def __init__(self, truth, rng):
        self.truth, self.rng, self.n_known = truth, rng, 0
        self.n_drafted = self.n_accepted = 0

    def add(self, token):
        self.n_known += 1

    def propose(self, limit):
        n = self.rng.randint(0, min(limit, MAX_DRAFT))
        self.n_drafted += n
        right = self.truth[self.n_known :][: self.rng.randint(0, n)]
        return [*right, *(self.rng.randrange(64) for _ in range(n - len(right)))]


@pytest.fixture(scope="module")
def models():
    return tiny_models()


def guesses(case, truth):
    return lambda ids, most: Guesses([response.token for response in truth], case.rng)


def greedy(model, ids, timeline=None):
    options = AnswerOptions(sampler=Sampler(temperature=0), max_tokens=4, draft=0)
    return told(stream(timeline or Timeline(model), TOKENIZER, ids, options))


def test_an_answer_with_drafts_is_the_answer_without(models):
    n_drafted = n_accepted = 0
    for seed in range(N_CASES):
        case = Case(models, seed)
        plain = case.plain()
        guessed = list(case.answer(Timeline(case.model), drafter=guesses(case, plain)))
        assert told(guessed) == told(plain), seed
        n_drafted += guessed[-1].drafted_tokens
        found = list(case.answer(Timeline(case.model)))
        assert told(found) == told(plain), seed
        n_accepted += found[-1].accepted_tokens
    assert n_drafted > 5 * N_CASES and n_accepted > N_CASES


def test_an_answer_that_ends_within_a_draft_leaves_the_timeline_as_if_there_were_none(models, tmp_path, monkeypatch):
    """It is closed, interrupted, forked, or its cache is saved and read again, and the text goes on in another way."""
    countdown = [0]
    for owner, name in [(kernels.ReadyModel, "run"), (RollingBufferCache, "reserve"), (RollingBufferCache, "put")]:
        monkeypatch.setattr(owner, name, interrupting(getattr(owner, name), countdown))
    for seed in range(N_CASES):
        case = Case(models, seed)
        plain, timeline = case.plain(), Timeline(case.model, max_snapshot_bytes=1 << 20)
        answer, found = case.answer(timeline, drafter=guesses(case, plain)), []
        countdown[0] = case.rng.randint(1, 60) if case.rng.random() < 0.5 else 0
        try:
            for response in answer:
                found.append(response)
                if len(found) == case.rng.randint(1, 24):
                    break
        except KeyboardInterrupt:
            pass
        countdown[0] = 0
        assert told(found) == told(plain)[: len(found)], seed
        held = timeline.ids
        if case.rng.random() < 0.3:
            timeline = timeline.fork()
        elif case.rng.random() < 0.3 and held:
            timeline = saved_and_read(timeline, tmp_path / "cache")
        answer.close()
        for n in (len(held), len(held) - 3):
            ids = [*held[: max(n, 0)], *(case.rng.randrange(6, 64) for _ in range(3))]
            assert greedy(case.model, ids, timeline) == greedy(case.model, ids), seed


def saved_and_read(timeline, path):
    with path.open("wb") as file:
        crc = write_cache(file, timeline.layers, timeline.ids)
    other = Timeline(timeline.model)
    other.restore(timeline.ids, read_cache(path, timeline.model.args, timeline.ids, crc))
    return other


def test_a_model_drafts_what_it_would_write(models):
    for seed in range(N_CASES // 10):
        case = Case(models, seed)
        plain = case.plain()
        assert told(case.answer(Timeline(case.model), drafter=DraftModel(models[-1]))) == told(plain), seed
    drafter, options = DraftModel(models[0]), AnswerOptions(sampler=Sampler(temperature=0), max_tokens=40)
    for ids in (case.ids, case.ids[:-2], [*case.ids, 9]):  # it goes on from what it has read
        plain = list(stream(Timeline(models[0]), TOKENIZER, ids, replace(options, draft=0)))
        found = list(stream(Timeline(models[0]), TOKENIZER, ids, replace(options, drafter=drafter)))
        assert told(found) == told(plain)
        assert found[-1].accepted_tokens > len(found) // 2


def test_a_draft_model_whose_context_is_full_drafts_nothing():
    small, _ = tiny_model(sliding_window=None, max_position_embeddings=16)
    drafts = DraftModel(small)(list(range(1, 14)), 15)
    assert len(drafts.propose(3)) == 3
    drafts.add(5)
    assert drafts.propose(3) == []


def test_a_draft_is_what_followed_the_same_tokens_before():
    drafts = NGramDrafts([1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2])
    drafts.add(3)
    assert drafts.propose(20) == [4, 5, 6]
    drafts.add(4)
    assert drafts.propose(20) == [5, 6, 7]
    assert drafts.propose(2) == [5, 6]
    drafts.add(11)
    assert drafts.propose(20) == []


def test_the_place_with_most_of_the_same_tokens_is_taken():
    """In a table, the latest row would be a wrong guess for the next one."""
    rows = [[row, *range(50, 60), 100 + row] for row in range(9)]
    text = [token for row in rows for token in row]
    drafts = NGramDrafts([*text, *text[:35]])
    assert drafts.propose(20) == [102, 3, 50]


def test_drafts_become_long_while_they_are_right_and_pause_when_they_are_wrong():
    text = list(range(100, 200))
    drafts = NGramDrafts([*text, *text[:4]])
    lengths = []
    for token in text[4:70]:
        if not drafts._expected:
            lengths.append(len(drafts.propose(99)))
        drafts.add(token)
    assert set(lengths[: TRUSTED // SHORT_DRAFT]) == {SHORT_DRAFT} and lengths[-1] == MAX_DRAFT
    for i in range(MAX_MISSES):
        for token in text[10 * i : 10 * i + 4]:
            drafts.add(token)
        assert drafts.propose(99)
        drafts.add(5)
    for token in [*range(PAUSE - 5), *text[:4]]:
        drafts.add(token)
        assert drafts.propose(99) == []
    drafts.add(text[4])
    assert drafts.propose(99) == text[5 : 5 + SHORT_DRAFT]

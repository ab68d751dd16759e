"""Answers that share passes are the answers that each would be alone, however they begin and end."""

import os
import random
from itertools import islice

import pytest
from helpers.answers import TOKENIZER, Case, Quoting, tiny_models, told
from helpers.models import interrupting, on_evaluation

from mistral_mlx import kernels
from mistral_mlx.errors import CheckpointError, OptionError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.generation.together import Together
from mistral_mlx.kernels import native

N_CASES = int(os.environ.get("TOGETHER_CASES", "30"))
PROMPT = [1, 9, 30, 12, 44, 7, 8, 21, 50, 3, 17]


@pytest.fixture(scope="module")
def models():
    return tiny_models()


def opener(case, timeline=None, **options):
    return lambda: case.answer(timeline or Timeline(case.model), **options)


def cases_of(models, seed):
    rng = random.Random(seed)
    model, n = rng.choice(models), rng.randint(1, 9)
    return rng, [Case([model], 1000 * seed + i) for i in range(n)]


@pytest.mark.parametrize("native_kernels", [True, False])
def test_answers_together_are_those_one_by_one(models, native_kernels, monkeypatch):
    monkeypatch.setattr(native, "available", native.available and native_kernels)
    for seed in range(N_CASES if native_kernels else 3):
        rng, cases = cases_of(models, seed)
        together = Together([opener(case) for case in cases], rng.randint(1, 6))
        found = [told(pieces) for pieces in together]
        assert found == [told(case.plain()) for case in cases], seed
        assert together.n_tokens == sum(map(len, found))


def test_prompts_with_a_common_beginning_read_it_once_and_go_their_own_ways(models):
    for seed in range(N_CASES):
        rng, cases = cases_of(models, seed)
        for case in cases:
            case.ids = [*cases[0].ids, *case.ids[1 : rng.randint(2, 9)]]
        timeline = Timeline(cases[0].model, max_snapshot_bytes=1 << 20)
        found = [list(pieces) for pieces in Together([opener(case, timeline, fork=True) for case in cases], 4)]
        assert list(map(told, found)) == [told(case.plain()) for case in cases], seed
        assert all(answer[-1].cached_tokens >= len(cases[0].ids) - 1 for answer in found[1:])


def test_an_answer_that_nobody_reads_to_its_end_changes_no_other(models):
    for seed in range(N_CASES):
        rng, cases = cases_of(models, seed)
        found = []
        for case, pieces in zip(cases, Together(map(opener, cases), 4), strict=True):
            n = rng.choice([None, 0, 1, 3])
            found.append(told(islice(pieces, n)))
            pieces.close()
            assert found[-1] == told(case.plain())[:n], seed


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
def test_an_answer_alone_is_drafted_once(models):
    """It used to be drafted twice, by Together and by its own loop."""
    cases = [Case([models[0]], seed) for seed in range(9)]
    alone = [list(case.answer(Timeline(case.model)))[-1].drafted_tokens for case in cases]
    assert [list(pieces)[-1].drafted_tokens for pieces in Together(map(opener, cases), 1)] == alone
    assert any(alone)


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
def test_a_pass_reads_the_next_token_of_every_answer(models, monkeypatch):
    lengths = []
    options = AnswerOptions(sampler=lambda logits, history: 20, max_tokens=9, draft=0)
    on_evaluation(monkeypatch, lambda ids, cache: lengths.append(ids.shape[1]))
    answers = Together([lambda: stream(Timeline(models[0]), TOKENIZER, PROMPT, options)] * 5, 5)
    assert [len(list(pieces)) for pieces in answers] == [9] * 5
    assert lengths == [*[len(PROMPT)] * 5, *[5] * 8]


def test_what_is_wrong_with_an_answer_ends_that_one_alone(models):
    def refuse():
        raise OptionError("no")

    def damaged(logits, history):
        if len(history) > len(PROMPT):
            raise CheckpointError("damaged")
        return 20

    def opened(sampler, ids=PROMPT):
        options = AnswerOptions(sampler=sampler, max_tokens=5)
        return lambda: stream(Timeline(models[0]), TOKENIZER, ids, options)

    good = opened(Quoting(PROMPT, 1))
    answers = Together([good, refuse, opened(damaged), opened(damaged, ids=[]), good], 3)
    found = []
    for pieces in answers:
        try:
            found.append(len(list(pieces)))
        except (OptionError, CheckpointError) as error:
            found.append(str(error))
    assert found == [5, "no", "damaged", "the prompt is empty; give at least one token", 5]


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
def test_an_error_in_a_shared_pass_ends_the_answers_that_shared_it(models, monkeypatch):
    cases = [Case([models[0]], seed) for seed in range(3)]
    for case in cases:
        case.options["max_tokens"] = 9
    answers = iter(Together([opener(case) for case in cases[:2]], 2))
    first = next(answers)
    next(first)
    with monkeypatch.context() as patch:
        patch.setattr(kernels.ReadyModel, "run", lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            list(first)
    with pytest.raises(ZeroDivisionError):
        list(next(answers))
    assert told(cases[2].answer(Timeline(models[0]))) == told(cases[2].plain())


@pytest.mark.parametrize("place", range(1, 9))
def test_an_interrupt_ends_all_and_leaves_every_timeline_usable(models, place, monkeypatch):
    cases, countdown = [Case([models[0]], seed) for seed in range(3)], [0]
    timelines = [Timeline(case.model) for case in cases]
    monkeypatch.setattr(kernels.ReadyModel, "run", interrupting(kernels.ReadyModel.run, countdown))
    together = Together([opener(case, t) for case, t in zip(cases, timelines, strict=True)], 3)
    countdown[0] = place
    try:
        for pieces in together:
            list(pieces)
    except KeyboardInterrupt:
        together.close()
    assert countdown[0] <= 0
    countdown[0] = 0
    for case, timeline in zip(cases, timelines, strict=True):
        assert told(case.answer(timeline)) == told(case.plain())

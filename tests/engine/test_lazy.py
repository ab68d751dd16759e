"""The token loop of a GPU, run on MLX's CPU device: it yields what the ordinary loop does, and leaves the same state.

The ordinary loop serves where the sampler is not a Sampler, so a function around one selects it.
"""

import contextlib

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import LetterTokenizer, interrupting, tiny_model

from mistral_mlx import kernels
from mistral_mlx.errors import CheckpointError
from mistral_mlx.generation import lazy
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.decode import decode
from mistral_mlx.generation.stream import generate_step, stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model import cache
from mistral_mlx.model.cache import make_cache
from mistral_mlx.sampling.sampler import Sampler

PROMPT = [1, 9, 30, 12, 44, 7, 8, 21, 50, 3, 17]
SAMPLINGS = [
    {"temperature": 0},
    {"temperature": 1, "top_p": 1},
    {"temperature": 0.7, "top_p": 0.95},
    {"temperature": 1.5, "top_p": 0.9, "top_k": 20, "min_p": 0.05},
]
WINDOWS = [None, 8, 14]


@pytest.fixture(autouse=True)
def gpu(monkeypatch):
    """Everything as on a GPU, but for the device."""
    monkeypatch.setattr(kernels, "on_cpu", lambda: False)
    monkeypatch.setattr(cache, "slots_of", lambda window: window + 2)  # rings that wrap early
    mx.disable_compile()  # on a CPU it would start a C++ compiler
    yield
    mx.enable_compile()


@pytest.fixture
def n_ahead(monkeypatch):
    """Count the steps that run ahead."""
    counted, run_ahead = [], Timeline.run_ahead
    monkeypatch.setattr(Timeline, "run_ahead", lambda self, token: counted.append(self) or run_ahead(self, token))
    return counted


def ordinary(sampler):
    return lambda logits, history: sampler(logits, history)


def read(model, ids=PROMPT):
    timeline = Timeline(model)
    timeline.extend(ids)
    return timeline


def tokens(timeline, choose, n):
    return [decoded.token for decoded in decode(timeline, choose, n)]


def answer(model, choose, n=20, ids=PROMPT):
    timeline = read(model, ids)
    return tokens(timeline, choose, n), timeline.ids


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_both_loops_yield_the_same_ids(sampling, window, n_ahead):
    model = tiny_model(sliding_window=window)[0]
    expected = answer(model, ordinary(Sampler(seed=1, **sampling)), 30)
    assert not n_ahead
    assert answer(model, Sampler(seed=1, **sampling), 30) == expected
    assert len(n_ahead) == (28 if window == 14 else 29)  # not the step that wraps the ring, nor a last one


def test_a_seed_gives_the_next_answer_the_same_numbers_too():
    """The number of a step that ran ahead in vain is used for the next choice."""
    model, samplers = tiny_model()[0], (Sampler(temperature=1, seed=5), Sampler(temperature=1, seed=5))
    for n in (3, 1, 7):
        found = [next_tokens(decode(read(model), s, 30), n) for s in (samplers[0], ordinary(samplers[1]))]
        assert found[0] == found[1]


def next_tokens(steps, n):
    taken = [next(steps).token for _ in range(n)]
    steps.close()
    return taken


@pytest.mark.parametrize(
    "options",
    [
        {"max_tokens": 1},
        {"max_tokens": 12},
        {"max_tokens": 99},
        {"max_tokens": 30, "stop": ["a", "b", "c", "d", "e", "f", "g"]},
        {"max_tokens": 30, "fork": True},
        {"max_tokens": 5, "n_logprobs": 2},
    ],
)
@pytest.mark.parametrize("changes", [{}, {"eos_token_id": list(range(20))}, {"sliding_window": None}])
def test_both_streams_are_the_same(options, changes):
    """Up to a stop id, a stop string, the limit, or the end of the context."""
    tokenizer = LetterTokenizer()
    model = tiny_model(**{"sliding_window": 8, "max_position_embeddings": 48, **changes})[0]
    found = []
    for choose in (ordinary, lambda sampler: sampler):
        timeline = Timeline(model)
        sampler = choose(Sampler(temperature=0.9, seed=2))
        pieces = [  # the second answer follows the first
            (r.text, r.token, r.finish_reason, r.prompt_tokens, r.generation_tokens, r.logprobs)
            for ids in (PROMPT, [*PROMPT, 6, 7])
            for r in stream(timeline, tokenizer, ids, AnswerOptions(sampler=sampler, **options))
        ]
        found.append((pieces, timeline.ids, timeline.position, [layer.offset for layer in timeline.layers]))
    assert found[0] == found[1]


@pytest.mark.parametrize("sampling", [{"repetition_penalty": 1.2}, {"xtc_probability": 0.5}, {"logit_bias": {3: 1.0}}])
def test_what_needs_the_ids_or_numpy_takes_the_ordinary_loop(sampling, n_ahead):
    tokens(read(tiny_model()[0]), Sampler(**sampling), 5)
    assert not n_ahead


def test_a_cache_from_elsewhere_is_never_ahead(n_ahead):
    model = tiny_model()[0]
    cache = make_cache(model.args)
    steps = generate_step(PROMPT, model, cache=cache, max_tokens=3, sampler=Sampler(temperature=0))
    assert [cache[0].offset for _ in steps] == [len(PROMPT), len(PROMPT) + 1, len(PROMPT) + 2]
    assert not n_ahead


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("look", [lambda t: t.layers, lambda t: t.fork(), lambda t: t.position, lambda t: t.logits])
def test_a_token_enters_the_timeline_when_the_next_is_asked_for(window, look):
    """Looking at the timeline in between changes nothing, although the step that ran ahead may be taken back for it."""
    model, sampler = tiny_model(sliding_window=window)[0], Sampler(temperature=0.8, seed=1)
    expected, _ = answer(model, ordinary(Sampler(temperature=0.8, seed=1)))
    timeline, seen = read(model), []
    for decoded in decode(timeline, sampler, 20):
        look(timeline)
        assert (timeline.ids, timeline.position) == (PROMPT + seen, len(PROMPT) + len(seen))
        seen.append(decoded.token)
    assert seen == expected
    assert {layer.offset for layer in timeline.layers} == {timeline.position}


@pytest.mark.parametrize("window", WINDOWS)
@pytest.mark.parametrize("n", [1, 2, 3, 4, 9])
def test_an_answer_that_is_broken_off_can_be_gone_on_with(window, n):
    """Up to the first ids, the last ones, and a prompt that the timeline holds whole."""
    model, greedy = tiny_model(sliding_window=window)[0], Sampler(temperature=0)
    timeline = read(model)
    start = next_tokens(decode(timeline, greedy, 30), n)
    assert timeline.ids == PROMPT + start[:-1]
    for ids in (PROMPT + start, PROMPT + start[:-1] + [60, 61], PROMPT, PROMPT[:6]):
        rest = ids[timeline.rewind(ids) :]
        if rest:
            timeline.extend(rest)
        assert tokens(timeline, greedy, 5) == answer(model, ordinary(greedy), 5, ids)[0]


@pytest.mark.parametrize("window", WINDOWS)
def test_forks_share_a_prompt(window):
    model = tiny_model(sliding_window=window)[0]
    timeline = read(model)
    expected = [answer(model, ordinary(Sampler(temperature=1, seed=seed)))[0] for seed in range(3)]
    forks = [timeline.fork() for _ in range(3)]
    answers = [decode(fork, Sampler(temperature=1, seed=seed), 20) for seed, fork in enumerate(forks)]
    assert [tuple(d.token for d in ds) for ds in zip(*answers, strict=True)] == [*zip(*expected, strict=True)]
    assert timeline.ids == PROMPT
    assert tokens(timeline, Sampler(temperature=1, seed=0), 20) == expected[0]


def test_two_answers_of_one_timeline_do_not_take_each_others_steps():
    timeline = read(tiny_model(sliding_window=None)[0])
    first, second = (decode(timeline, Sampler(temperature=0), 9) for _ in range(2))
    for steps in (first, second, first, second, second, first):
        next(steps)
        assert {layer.offset for layer in timeline._layers} == {timeline.position + 1}
    first.close()
    second.close()
    assert {layer.offset for layer in timeline.layers} == {timeline.position}
    ids, logits = timeline.ids, timeline.logits
    np.testing.assert_allclose(np.array(logits), np.array(read(timeline.model, ids).logits), atol=1e-4)


@pytest.mark.parametrize("window", [None, 8, 14])
@pytest.mark.parametrize("place", range(1, 13))
def test_an_interrupt_leaves_the_ids_that_every_layer_has(window, place, monkeypatch):
    model, countdown = tiny_model(sliding_window=window)[0], [0]
    timeline, sampler = read(model), Sampler(temperature=1, seed=3)
    for name in ("products", "attention", "rms_norm"):
        monkeypatch.setattr(kernels, name, interrupting(getattr(kernels, name), countdown))
    countdown[0], seen = place, []
    with contextlib.suppress(KeyboardInterrupt):
        seen.extend(decoded.token for decoded in decode(timeline, sampler, 4))
    countdown[0] = 0
    assert timeline.ids in (PROMPT + seen, PROMPT + seen[:-1])
    assert {layer.offset for layer in timeline.layers} == {timeline.position} == {len(timeline.ids)}
    ids = [*PROMPT, *seen]
    timeline.extend(ids[timeline.rewind(ids) :] or [60])
    greedy = Sampler(temperature=0)
    assert answer(model, ordinary(greedy), 5, list(timeline.ids))[0] == tokens(timeline, greedy, 5)


@pytest.mark.parametrize("place", [1, 2])
def test_an_interrupt_while_an_answer_is_closed_loses_no_number_and_no_token(place, monkeypatch):
    """It came before the number of the step that ran ahead was given back, and a seed went on with other ones."""
    model, countdown = tiny_model()[0], [0]
    samplers = Sampler(temperature=1, seed=5), ordinary(Sampler(temperature=1, seed=5))
    monkeypatch.setattr(cache.RollingBufferCache, "trim", interrupting(cache.RollingBufferCache.trim, countdown))
    answers = []
    for sampler in samplers:
        timeline = read(model)
        steps = decode(timeline, sampler, 9)
        start, countdown[0] = [next(steps).token for _ in range(3)], place
        with contextlib.suppress(KeyboardInterrupt):
            steps.close()
        countdown[0] = 0
        assert {layer.offset for layer in timeline.layers} == {timeline.position} == {len(PROMPT) + 2}
        answers.append((start, answer(model, sampler)))
    assert answers[0] == answers[1]


def interrupt_at(place, steps):
    for n, _ in enumerate(steps):
        if n == place:
            raise KeyboardInterrupt


def test_an_interrupt_of_the_reader_leaves_the_ids_that_were_asked_for():
    timeline = read(tiny_model()[0])
    with pytest.raises(KeyboardInterrupt):
        interrupt_at(2, decode(timeline, Sampler(temperature=0), 9))
    assert len(timeline.ids) == len(PROMPT) + 2 == timeline.layers[0].offset


def test_an_error_of_the_device_leaves_nothing(monkeypatch):
    """It may come late, with the token that needs the arrays which were never computed."""
    timeline = read(tiny_model()[0])
    steps = decode(timeline, Sampler(temperature=0), 9)
    next(steps)

    def fail(*arrays):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(lazy.mx, "eval", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        next(steps)
    assert (timeline.ids, timeline.position, timeline.ahead) == ([], 0, None)


@pytest.mark.parametrize("damage", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_are_refused_and_forget_nothing(damage):
    model = tiny_model()[0]
    timeline = read(model)
    timeline.logits = mx.where(mx.arange(64) == 5, damage, timeline.logits)
    with pytest.raises(CheckpointError, match="NaN or infinite"):
        tokens(timeline, Sampler(temperature=0), 5)
    assert (timeline.ids, timeline.layers[0].offset) == (PROMPT, len(PROMPT))


@pytest.mark.parametrize("window", WINDOWS)
def test_a_prompt_in_slices_leaves_the_logits_of_a_whole_one(window):
    model = tiny_model(sliding_window=window)[0]
    whole, sliced = read(model), Timeline(model)
    sliced.extend(PROMPT, step_size=4)
    np.testing.assert_allclose(np.array(sliced.logits), np.array(whole.logits), atol=1e-5)


def test_the_next_step_is_scheduled_before_a_token_is_read(monkeypatch):
    events, run_ahead = list[str](), Timeline.run_ahead
    monkeypatch.setattr(Timeline, "run_ahead", lambda self, token: events.append("step") or run_ahead(self, token))
    steps = decode(read(tiny_model()[0]), Sampler(temperature=0), 4)
    for _ in steps:
        events += ["read"]
    assert events == ["step", "read", "step", "read", "step", "read", "read"]

"""A timeline: what it keeps of a new prompt, what a fork shares, what an exception leaves."""

import pytest
from helpers.models import LetterTokenizer, interrupting, tiny_model

from mistral_mlx import kernels
from mistral_mlx.errors import ContextError, OptionError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.decode import decode
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.cache import RollingBufferCache
from mistral_mlx.sampling.sampler import Sampler

PROMPT = [1, 9, 30, 12, 44, 7, 8, 21, 50, 3, 17]
GREEDY = Sampler(temperature=0)


def answer(timeline, n=5):
    return [decoded.token for decoded in decode(timeline, GREEDY, n)]


def cold(model, ids, n=5):
    timeline = Timeline(model)
    timeline.extend(ids)
    return answer(timeline, n)


def read(timeline, ids):
    if rest := ids[timeline.rewind(ids) :]:
        timeline.extend(rest)


@pytest.mark.parametrize("window", [None, 64, 4])
@pytest.mark.parametrize(("n_read", "n_common"), [(11, 8), (165, 8), (165, 60), (165, 160), (300, 179), (300, 180)])
def test_the_common_prefix_is_kept_unless_a_ring_has_overwritten_it(window, n_read, n_common):
    """A ring for 64 tokens has 128 slots, one for 4 too: it goes back 65 or 125 tokens."""
    timeline, ids = Timeline(tiny_model(sliding_window=window)[0]), (PROMPT * 30)[:n_read]
    timeline.extend(ids)
    other = [*ids[:n_common], 60, 61]
    is_there = window is None or n_read <= 128 or n_read - n_common <= {64: 65, 4: 125}[window]
    kept = n_common if is_there else 0
    assert timeline.rewind(other) == kept == timeline.position == len(timeline.ids)
    timeline.extend(other[kept:])
    assert (answer(timeline), timeline.ids[: len(other)]) == (cold(timeline.model, other), other)


def test_one_id_is_left_to_evaluate_unless_its_logits_are_known():
    timeline = Timeline(tiny_model(sliding_window=None)[0])
    timeline.extend(PROMPT)
    assert timeline.rewind(PROMPT) == len(PROMPT)
    answer(timeline)
    assert timeline.rewind(PROMPT) == len(PROMPT) - 1


def test_a_snapshot_replaces_a_wrapped_ring():
    timeline = Timeline(tiny_model(sliding_window=8)[0], max_snapshot_bytes=1 << 20)
    ids = PROMPT * 15
    timeline.extend(ids[:4])
    timeline.keep_snapshot(ids, len(ids))
    timeline.extend(ids[4:])
    other = [*ids[:6], 60]
    assert (timeline.wrapped, timeline.rewind(other)) == (True, 4)
    timeline.extend(other[4:])
    assert answer(timeline) == cold(timeline.model, other)


@pytest.mark.parametrize("window", [None, 8])
def test_forks_go_their_own_way(window):
    timeline = Timeline(tiny_model(sliding_window=window)[0])
    timeline.extend(PROMPT)
    forks = [timeline.fork(), timeline.fork()]
    assert [answer(fork) for fork in forks] == [cold(timeline.model, PROMPT)] * 2
    forks[0].extend([5])
    assert timeline.ids == PROMPT
    assert answer(timeline) == cold(timeline.model, PROMPT)


def test_an_interrupt_leaves_the_tokens_that_every_layer_has():
    timeline = Timeline(tiny_model(sliding_window=None)[0])

    def stop(what, done, total):
        if done > 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        timeline.extend(PROMPT, stop, step_size=4)
    assert (timeline.ids, timeline.position, timeline.logits) == (PROMPT[:8], 8, None)
    read(timeline, PROMPT)
    assert answer(timeline) == cold(timeline.model, PROMPT)


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("place", range(1, 9))
def test_an_interrupted_step_is_taken_back(window, place, monkeypatch):
    timeline, countdown = Timeline(tiny_model(sliding_window=window)[0]), [0]
    timeline.extend(PROMPT)
    places = [(kernels, "products"), (kernels, "run_block"), (kernels, "attention"), (kernels.ReadyModel, "run")]
    for owner, name in [*places, (RollingBufferCache, "reserve"), (RollingBufferCache, "put")]:
        monkeypatch.setattr(owner, name, interrupting(getattr(owner, name), countdown))
    countdown[0] = place
    try:
        answer(timeline)
    except KeyboardInterrupt:
        assert timeline.position == len(timeline.ids)
    countdown[0] = 0
    read(timeline, PROMPT)
    assert answer(timeline) == cold(timeline.model, PROMPT)


def test_an_error_leaves_nothing(monkeypatch):
    """Offsets may say that a step was done whose arrays were never computed."""
    timeline = Timeline(tiny_model(sliding_window=None)[0])
    timeline.extend(PROMPT)
    with monkeypatch.context() as patch:
        for name in ("attention", "run_block"):
            patch.setattr(kernels, name, lambda *args, **kwargs: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            timeline.extend(PROMPT)
    assert (timeline.ids, timeline.position) == ([], 0)


@pytest.mark.parametrize(("ids", "error"), [([], OptionError), ([64], OptionError), ([5] * 17, ContextError)])
def test_an_invalid_prompt_forgets_nothing(ids, error):
    timeline = Timeline(tiny_model(sliding_window=None, max_position_embeddings=16)[0])
    timeline.extend(PROMPT)
    with pytest.raises(error):
        timeline.rewind(ids)
    assert (timeline.ids, timeline.room) == (PROMPT, 5)


def test_a_timeline_that_holds_the_whole_prompt_reports_an_empty_reading():
    """Otherwise nothing would tell the caller that the answer begins."""
    timeline, told = Timeline(tiny_model()[0]), []
    options = AnswerOptions(sampler=GREEDY, max_tokens=1, fork=True, progress=lambda *args: told.append(args))
    for _ in range(2):
        list(stream(timeline, LetterTokenizer(), PROMPT[:1], options))
    assert told == [("reading the prompt", 0, 1), ("reading the prompt", 1, 1), ("reading the prompt", 0, 0)]


def test_a_prompt_has_a_snapshot_at_the_place_that_was_asked_for():
    timeline = Timeline(tiny_model(sliding_window=8)[0], max_snapshot_bytes=1 << 30)
    ids, counts = [6 + i % 58 for i in range(300)], []
    timeline.extend(ids[:10])
    timeline.extend(ids[10:], lambda what, done, total: counts.append(done), step_size=64, snapshot_at=110)
    assert [len(snapshot.ids) for snapshot in timeline.snapshots.kept] == [110]
    assert {0, 64, 100, 128, 192, 256, 290} <= set(counts) and counts == sorted(counts)
    cold = Timeline(timeline.model)
    cold.extend(ids)
    assert timeline.logits.tolist() == pytest.approx(cold.logits.tolist(), abs=1e-3)
    assert timeline.rewind([*ids[:110], 7]) == 110

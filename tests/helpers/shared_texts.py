"""What is done with a model that processes share, and with the same model alone: both must come to the same."""

import builtins
import gc
import itertools
import os
import signal
from pathlib import Path

import mlx.core as mx
import numpy as np
from helpers.models import LetterTokenizer

from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.timeline import Timeline, read_ahead
from mistral_mlx.model.cache import make_cache
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.session.kept import KeptPrompts
from mistral_mlx.session.saved import load, save

SEED_TEXT = np.random.default_rng(11).integers(3, 64, 2000).tolist()


def text(n, start=0):
    """Return `n` ids."""
    return SEED_TEXT[start : start + n]


def forced(model, n_prompt, n_steps, step_size):
    """Return the logits ``[S, V]`` after a prompt and after each of the next tokens, all of them given."""
    timeline = Timeline(model)
    timeline.extend(text(n_prompt), step_size=step_size)
    rows = [timeline.logits]
    for token in text(n_steps, n_prompt):
        timeline.step(token)
        rows.append(timeline.logits)
    return np.stack([np.array(row) for row in rows])


def every_position(model, n, sizes):
    """Return the logits ``[S, V]`` of every position, by steps of these sizes in turn."""
    cache, parts, start = make_cache(model.args), [], 0
    for size in itertools.cycle(sizes):
        if start >= n:
            return np.concatenate(parts)
        size = min(size, n - start)
        parts.append(np.array(model(mx.array([text(size, start)]), cache)[0]))
        start += size
    return None


def answer(timeline, n):
    """Return the `n` likeliest tokens, each after the one before."""
    tokens = []
    for _ in range(n):
        tokens.append(int(mx.argmax(timeline.logits)))
        timeline.step(tokens[-1])
    return tokens


def greedy(model, n_prompt, n, step_sizes):
    """Return the answers to the same prompt, read in steps of different sizes."""
    found = []
    for size in step_sizes:
        timeline = Timeline(model)
        timeline.extend(text(n_prompt), step_size=size)
        found.append(answer(timeline, n))
    return found


def read(timeline, ids):
    """Let a timeline hold `ids`, and return how many of them it had."""
    kept = timeline.rewind(ids)
    if rest := ids[kept:]:
        timeline.extend(rest, step_size=16)
    return kept


def goes_back(model):
    """Return the answers of a timeline that goes back: a little, to a snapshot from before a wrap, to nothing."""
    timeline, found = Timeline(model, max_snapshot_bytes=1 << 24), []
    ids = text(300)
    for at in (40, 120):
        timeline.extend(ids[timeline.position : at])
        timeline.keep_snapshot(ids, len(ids))
    timeline.extend(ids[120:])
    found.append((timeline.wrapped, answer(timeline, 5)))
    others = (text(290), [*text(120), 5, 6, 7], [*text(130), 9], [*text(40), 8], [*text(10), 4], text(500))
    found += [(read(timeline, ids), answer(timeline, 5)) for ids in others]
    timeline.clear()
    found.append((read(timeline, text(77)), answer(timeline, 70)))
    return found


def forks(model):
    """Return the answers of forks of a timeline, forks of these, and itself."""
    timeline = Timeline(model)
    timeline.extend(text(150))
    before, after = timeline.fork(), timeline.fork()
    found = [answer(timeline, 4)]
    after.extend(text(9, 500))
    inner = after.fork()
    found += [answer(after, 4), answer(inner, 6), answer(before, 4), answer(timeline, 4)]
    return found


def drafts(model):
    """Return answers after drafts of which none, some or all were right."""
    timeline = Timeline(model)
    timeline.extend(text(126))
    expected, found = answer(timeline.fork(), 24), []
    for draft in ([60, 61, 62], expected[:3], [*expected[3:5], 1, 1, 1, 1], expected[5:13], [7]):
        read_ahead([(timeline, draft)])
        found.append(answer(timeline, 2 if draft[0] == 60 else 3))
    return found


def together(model, n):
    """Return the answers and logits of `n` texts that are read together, of different lengths, one of them forked."""
    timelines = []
    for i in range(n - 1):
        timelines.append(Timeline(model))
        timelines[-1].extend(text(3 + 37 * (i % 8), i))
    timelines.append(timelines[0].fork())
    found = [[] for _ in timelines]
    for step in range(4):
        parts = [(timeline, text(1 + (i + step) % 3, 9 * i)) for i, timeline in enumerate(timelines)]
        read_ahead(parts)
        for rows, (timeline, tokens) in zip(found, parts, strict=True):
            for token in tokens:
                timeline.step(token)
                rows.append(np.array(timeline.logits))
        timelines[step % n].rewind(timelines[step % n].ids[:-1])
    return [np.stack(rows) for rows in found]


def many_texts(model, n):
    """Return nothing; `n` timelines begin, go on, are forked and forgotten."""
    for i in range(n):
        timeline = Timeline(model, max_snapshot_bytes=1 << 24)
        timeline.extend(text(5 + i))
        timeline.fork().extend(text(3, i))
        timeline.keep_snapshot(text(900), 900)
        timeline.rewind([1])
        timeline.extend([1, 2])
        timeline.clear()
    del timeline
    gc.collect()
    Timeline(model).extend(text(2))


def stopped(model, at, by):
    """Return the place where a prompt was stopped, `by` an error or a signal, and the answers to the next ones."""
    seen = []

    def stop(what, done, total):
        seen.append(done)
        if len(seen) == at:
            if by == "signal":
                os.kill(os.getpid(), signal.SIGINT)
            else:
                raise getattr(builtins, by)

    timeline, found = Timeline(model), []
    timeline.extend(text(50))
    for prompt in (text(80), text(90)):
        seen.clear()
        try:
            timeline.rewind(prompt)
            timeline.extend(prompt[timeline.position :], stop, step_size=16)
        except BaseException as error:
            found.append((type(error).__name__, timeline.position, len(timeline.ids), seen[-1]))
        other = Timeline(model)
        other.extend(text(20))
        found.append((answer(other, 3), read(timeline, text(70)), answer(timeline, 3)))
    return found


def measured(model, depth):
    """Return the answers of a timeline that a measurement brings back to `depth` tokens again and again."""
    timeline, found = Timeline(model), []
    timeline.extend(text(depth))
    n_rows = [layer.n_allocated for layer in timeline.layers]
    for start in (0, 500, 600):
        for layer, n in zip(timeline.layers, n_rows, strict=True):
            layer.shrink(depth, n)
        timeline.restore(timeline.ids[:depth], timeline.layers)
        timeline.extend(text(150, start))
        found.append(answer(timeline, 5))
    return found


def keeps(model, folder):
    """Return what a prompt takes from the disk that one process kept, whether it is kept itself, and the files."""
    found = []
    for _ in range(2):
        kept, timeline = KeptPrompts(Path(folder), 1 << 24), Timeline(model)
        n_taken = kept.take_up(timeline, text(200))
        timeline.extend(text(200)[n_taken:])
        found.append((n_taken, kept.keep(timeline, 100), sorted(path.name for path in Path(folder).iterdir())))
    return found


def sessions(model, folder):
    """Return the answers of a session that one process saved, and whether the cache was there and is saved again."""
    session, _, cache = load(Path(folder) / "before.json", model, LetterTokenizer())
    said = [last_of(session, "go on"), last_of(session, "and on")]
    again = save(session, Path(folder) / f"{'alone' if model.is_whole else 'shared'}.json", {})
    return said, cache is not None, again is not None


def last_of(session, question):
    """Return the answer to a question, in full."""
    options = AnswerOptions(sampler=Sampler(temperature=0), max_tokens=12)
    return "".join(piece.text for piece in session.ask(question, options))


SCENARIOS = {
    scenario.__name__: scenario
    for scenario in (
        forced,
        every_position,
        greedy,
        goes_back,
        forks,
        drafts,
        together,
        many_texts,
        stopped,
        measured,
        keeps,
        sessions,
    )
}

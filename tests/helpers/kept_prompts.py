"""Answers prompts through a store of kept prompts, and compares each with a cold run."""

import random

from helpers.models import LetterTokenizer

from mistral_mlx import generate_step
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.sampling.sampler import Sampler

GREEDY = Sampler(temperature=0)


def long_ids(n, seed=0):
    """Return `n` random ids of the letters of the tiny models."""
    rng = random.Random(seed)
    return [rng.randrange(6, 64) for _ in range(n)]


def answer(store, model, ids, *, keep=0, n=8, name="tiny"):
    """Answer `ids` as another process does. Return how many ids came from the disk, and whether `keep` were kept.

    The answer is compared with that of a cold run.
    """
    timeline = Timeline(model, max_snapshot_bytes=1 << 30)
    n_taken = store.take_up(timeline, ids)
    asked = AnswerOptions(sampler=GREEDY, max_tokens=n, continues=True, snapshot_at=keep)
    found = list(stream(timeline, LetterTokenizer(), ids, asked))
    assert found[0].cached_tokens == n_taken
    tokens = [response.token for response in found]
    assert tokens == list(generate_step(ids, model, sampler=GREEDY, max_tokens=len(tokens)))
    return n_taken, bool(keep) and store.keep(timeline, keep, name)


def files_of(store):
    """Return the files of a store."""
    return sorted(store.folder.glob("*.safetensors"))

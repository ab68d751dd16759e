"""Measures answers that are decoded together: tokens per second in all, relative to one answer after the other.

    python benchmarks/batch.py --model 7b-cut-4bit

The prompts are read before. Equal answers begin and end together; ragged ones have prompts and answers of 1/4 to all
of the length, so that fewer and fewer share a pass towards the end.
"""

import time
from functools import partial

import mlx.core as mx
import numpy as np
from common import alternate, parser, ratio, spread
from models import ready
from report import finish, machine

from mistral_mlx import __version__, kernels, load_model, load_tokenizer
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.generation.together import Together
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.tokenizer.choose import Tokenizer

COUNTS = (1, 2, 4, 8, 16)
PROMPT, ANSWER = 128, 48  # tokens
TOKEN = 9  # what every answer says, so that none ends by itself


class Batch:
    """Prompts that were read, and how many tokens each answer has."""

    def __init__(self, model: Mistral, tokenizer: Tokenizer, n: int, *, ragged: bool) -> None:
        rng, self._tokenizer = np.random.default_rng(n), tokenizer
        shares = np.linspace(0.25, 1, n) if ragged and n > 1 else np.ones(n)
        self._prompts = [rng.integers(3, 1000, round(PROMPT * share)).tolist() for share in shares]
        self._lengths = [max(2, round(ANSWER * share)) for share in shares]
        self._timelines = [Timeline(model) for _ in self._prompts]
        for timeline, ids in zip(self._timelines, self._prompts, strict=True):
            timeline.extend(ids)

    def rate(self, *, n_parallel: int) -> float:
        """Return the tokens per second of all answers."""
        openers = [partial(self._open, i) for i in range(len(self._prompts))]
        start = time.perf_counter()
        n = sum(len(list(pieces)) for pieces in Together(openers, n_parallel))
        return n / (time.perf_counter() - start)

    def _open(self, i: int) -> object:
        options = AnswerOptions(
            sampler=lambda logits, history: TOKEN, max_tokens=self._lengths[i], draft=0, fork=True, splits=False
        )
        return stream(self._timelines[i], self._tokenizer, self._prompts[i], options)


def main() -> None:
    """Measure and report."""
    options = parser("Answers that are decoded together, relative to one after the other.")
    options.add_argument("--model", default="7b-cut-4bit", help="one of those in models.py")
    arguments = options.parse_args()
    described = machine(arguments)
    model_of = ready(arguments)
    mx.set_default_device(mx.cpu)
    kernels.set_threads(arguments.threads)
    folder = model_of.folder(arguments.work)
    model, tokenizer = load_model(folder), load_tokenizer(folder)
    batches = {
        f"{n} {kind}": Batch(model, tokenizer, n, ragged=kind == "ragged")
        for n in COUNTS
        for kind in ("equal", "ragged")
        if n > 1
    }
    measures = {
        f"{name}, {how}": partial(batch.rate, n_parallel=max(COUNTS) if how == "together" else 1)
        for name, batch in batches.items()
        for how in ("together", "one by one")
    }
    rates = alternate(arguments.runs, measures)
    record = {"model": model_of.name, "ours": {"version": f"mistral-mlx {__version__}", "kernels": kernels.names()}}
    record |= {"threads": arguments.threads, "runs": arguments.runs, "prompt": PROMPT, "answer": ANSWER}
    for name in batches:
        together, one = rates[f"{name}, together"], rates[f"{name}, one by one"]
        record[name] = {
            "tok_s": {"together": spread(together), "one_by_one": spread(one)},
            "together_against_one_by_one": ratio(together, one),
        }
    finish("batch", record, described, arguments)


if __name__ == "__main__":
    main()

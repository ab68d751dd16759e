"""Measures what a schema costs for each token: the same answer with and without it, in turns.

    python benchmarks/schemas.py --model 7b-4bit

Random weights write no JSON. So the answer is given: a list of records, token by token, that a sampler chooses after it
has looked at the logits. It is decoded without drafts, which is the cost of the mask, and with them: what the schema
forces is read in one pass.
"""

import json
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import mlx.core as mx
from common import alternate, figure, parser, ratio, spread
from models import named, ready
from report import finish, machine

from mistral_mlx import Constraint, Sampler, __version__, kernels, load_model, load_tokenizer
from mistral_mlx.constraint.guide import Guide
from mistral_mlx.constraint.vocabulary import Vocabulary
from mistral_mlx.generation.decode import decode
from mistral_mlx.generation.drafts import GuidedDrafts, NGramDrafts
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.sampling.filters import Ids
from mistral_mlx.tokenizer.choose import Tokenizer

WORDS = "red green blue small large round flat heavy light old new warm cold quick slow".split()
PROPERTIES = {
    "name": {"type": "string"},
    "description": {"type": "string"},
    "price": {"type": "number"},
    "in_stock": {"type": "boolean"},
}
RECORD = {
    "type": "object",
    "properties": PROPERTIES,
    "required": list(PROPERTIES),
    "additionalProperties": False,
}
SCHEMA = {"type": "array", "items": RECORD, "minItems": 1}
RECORDS = [
    {
        "name": f"{WORDS[n % 15]} {WORDS[n * 7 % 15]} thing",
        "description": f"It is {WORDS[n * 4 % 15]} and {WORDS[n * 11 % 15]}, and comes in a box of {n + 2}.",
        "price": n * 119 % 1000 / 10,
        "in_stock": n % 3 > 0,
    }
    for n in range(8)
]
TEMPERATURES = (0.0, 0.7)
CASES: dict[str, dict[str, Any]] = {
    f"temperature {temperature:g}, {'drafts' if drafts else 'no drafts'}": {
        "temperature": temperature,
        "drafts": drafts,
    }
    for temperature in TEMPERATURES
    for drafts in (False, True)
}
PROMPT = "List some things with name, description, price and whether they are in stock, as JSON."


class Given(Sampler):
    """Chooses a token as any sampler does, and returns the next one of a known answer."""

    def __init__(self, temperature: float, prompt: list[int], answer: list[int]) -> None:
        super().__init__(temperature=temperature)
        self._prompt, self._answer = prompt, answer

    def __call__(self, logits: mx.array, history: Sequence[int], allowed: Ids | None = None) -> int:
        """Return the next token."""
        super().__call__(logits, history, allowed)
        return self._answer[len(history) - len(self._prompt)]


class Measured:
    """A model that gives the answer again and again."""

    def __init__(self, model: object, tokenizer: Tokenizer, max_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._prompt = tokenizer.encode(PROMPT, bos=tokenizer.add_bos)
        self._answer = tokenizer.encode(json.dumps(RECORDS))[:max_tokens]
        self._timeline = Timeline(model)  # type: ignore[arg-type]
        self._timeline.extend(self._prompt)
        self._samplers = {t: Given(t, self._prompt, self._answer) for t in TEMPERATURES}
        start = time.perf_counter()
        self._constraint = Constraint.from_schema(SCHEMA)
        self._vocabulary = Vocabulary(tokenizer, self._timeline.model.args.vocab_size, tokenizer.eos_ids)
        self._guide().mask()
        self.ready_s = time.perf_counter() - start
        self.drafted = self.accepted = 0

    def rate(self, *, schema: bool, drafts: bool, temperature: float) -> float:
        """Return the tokens per second of the answer."""
        timeline, guide = self._timeline.fork(), self._guide() if schema else None
        guessed = NGramDrafts(self._prompt) if drafts else None
        if guessed is not None and guide is not None:
            guessed = GuidedDrafts(guessed, guide)
        sampler = self._samplers[temperature]
        choose = sampler if guide is None else guide.over(sampler)
        start = time.perf_counter()
        n = sum(1 for _ in decode(timeline, choose, len(self._answer), drafts=guessed))
        seconds = time.perf_counter() - start
        if schema and guessed is not None:
            self.drafted, self.accepted = guessed.n_drafted, guessed.n_accepted
        return n / seconds

    def _guide(self) -> Guide:
        return Guide(self._constraint, self._vocabulary, leading=self._tokenizer.leading)


def main() -> None:
    """Measure and report."""
    options = parser("An answer that is bound to a schema, relative to the same answer without.")
    options.add_argument("--model", default="7b-4bit", help="one of those in models.py")
    options.add_argument("--tokens", type=int, default=200, help="of the answer")
    options.add_argument("--tokenizer", type=Path, help="folder of another tokenizer with ids below the model's rows")
    arguments = options.parse_args()
    described = machine(arguments)
    model_of = ready(arguments)
    folder = named(model_of.name).folder(arguments.work)
    mx.set_default_device(mx.cpu)
    kernels.set_threads(arguments.threads)
    measured = Measured(load_model(folder), load_tokenizer(arguments.tokenizer or folder), arguments.tokens)
    rates = alternate(
        arguments.runs,
        {
            f"{'schema' if schema else 'free'}, {how}": partial(measured.rate, schema=schema, **case)
            for how, case in CASES.items()
            for schema in (True, False)
        },
    )
    record: dict[str, object] = {"model": model_of.name, "threads": arguments.threads, "runs": arguments.runs}
    record["ours"] = {"version": f"mistral-mlx {__version__}", "kernels": kernels.names()}
    record["ready_s"] = figure(measured.ready_s)
    for how in CASES:
        schema, free = rates[f"schema, {how}"], rates[f"free, {how}"]
        record[how] = {
            "tok_s": {"with_schema": spread(schema), "free": spread(free)},
            "with_against_free": ratio(schema, free),
        }
    record |= {"drafted": measured.drafted, "accepted": measured.accepted}
    finish("schemas", record, described, arguments)


if __name__ == "__main__":
    main()

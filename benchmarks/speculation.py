"""Measures what drafts from the text gain: the same answers with and without them, in turns.

    python benchmarks/speculation.py --model 7b-cut-4bit

Random weights copy nothing, and a small model copies badly. So the answers are given: what a model that does the task
would write, token by token. Drafts are right as often as they would be then, and each pass costs what it costs. The
texts are files of this repository, and the tokens those of SmolLM2.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import mlx.core as mx
from common import FOLDER, alternate, parser, ratio, spread
from models import named, ready
from report import finish, machine

from mistral_mlx import __version__, kernels, load_model, load_tokenizer
from mistral_mlx.generation.decode import decode
from mistral_mlx.generation.drafts import NGramDrafts
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.mistral import Mistral

TOKENIZER_OF = "smollm2-q4_0"
MAX_PROMPT, MAX_ANSWER = 1500, 200  # tokens


class Task(NamedTuple):
    """A prompt, and the answer that is asked for."""

    prompt: str
    answer: str


def tasks() -> dict[str, Task]:
    """Return the tasks; all but the last take most of the answer from the prompt."""
    code = (FOLDER / "table.py").read_text()
    records = [
        {"id": n, "name": f"item {n * 37 % 100}", "price": n * 119 % 1000, "in_stock": n % 3 > 0} for n in range(30)
    ]
    data = json.dumps(records, indent=1)
    text = (FOLDER.parent / "docs" / "security.md").read_text()
    sentences = [sentence.strip() for sentence in " ".join(text.split()).split(". ")]
    summary = ". ".join(f"It says: {sentence}" if n % 3 else sentence for n, sentence in enumerate(sentences[4:40:3]))
    quoted = ". ".join(sentences[10:13])
    free = (FOLDER.parent / "docs" / "tokenizers.md").read_text()
    return {
        "code with one change": Task(f"Rename cells to found:\n{code}", code.replace("cells", "found")),
        "JSON with one change": Task(
            f"Put item 3 in stock:\n{data}", data.replace('"in_stock": false', '"in_stock": true', 1)
        ),
        "summary that quotes": Task(f"Summarize this text with quotations:\n{text}", summary),
        "answer from a text": Task(
            f"{text}\nWhat does it say of files?", f"The text has this about files: {quoted}. So it is."
        ),
        "free text": Task("Describe the tokenizers of a language model.", free),
    }


class Answer:
    """An answer that is known, as a sampler: it looks at no logits."""

    def __init__(self, prompt: list[int], answer: list[int]) -> None:
        self.prompt, self.answer = prompt, answer

    def __call__(self, logits: mx.array, history: object) -> int:
        """Return the next token."""
        return self.answer[len(history) - len(self.prompt)]  # type: ignore[arg-type]


class Measured:
    """A task on a model: its prompt is read once, and answered again and again."""

    def __init__(self, model: Mistral, prompt: list[int], answer: list[int]) -> None:
        self._answer = Answer(prompt, answer)
        self._timeline = Timeline(model)
        self._timeline.extend(prompt)
        self.drafted = self.accepted = 0

    def rate(self, *, drafts: bool) -> float:
        """Return the tokens per second of the answer."""
        timeline, given = self._timeline.fork(), self._answer
        timeline.step(given.answer[0])  # the fork gets memory of its own
        guessed = NGramDrafts([*given.prompt, given.answer[0]]) if drafts else None
        start = time.perf_counter()
        n = sum(1 for _ in decode(timeline, given, len(given.answer) - 1, drafts=guessed))
        seconds = time.perf_counter() - start
        if guessed:
            self.drafted, self.accepted = guessed.n_drafted, guessed.n_accepted
        return n / seconds


def main() -> None:
    """Measure and report."""
    options = parser("Answers with drafts from the text, relative to answers without.")
    options.add_argument("--model", default="7b-cut-4bit", help="one of those in models.py")
    arguments = options.parse_args()
    described = machine(arguments)
    model_of = ready(arguments)
    tokens = _encoder(load_tokenizer(named(TOKENIZER_OF).folder(arguments.work)), model_of.shape.vocab_size)
    mx.set_default_device(mx.cpu)
    kernels.set_threads(arguments.threads)
    model = load_model(model_of.folder(arguments.work))
    measured = {
        name: Measured(model, tokens(task.prompt)[:MAX_PROMPT], tokens(task.answer)[:MAX_ANSWER])
        for name, task in tasks().items()
    }
    rates = alternate(
        arguments.runs,
        {
            f"{name}, {how}": partial(m.rate, drafts=how == "drafts")
            for name, m in measured.items()
            for how in ("drafts", "none")
        },
    )
    record = {"model": model_of.name, "ours": {"version": f"mistral-mlx {__version__}", "kernels": kernels.names()}}
    record |= {"threads": arguments.threads, "runs": arguments.runs}
    for name, one in measured.items():
        with_drafts, without = rates[f"{name}, drafts"], rates[f"{name}, none"]
        record[name] = {
            "tok_s": {"with_drafts": spread(with_drafts), "without": spread(without)},
            "with_against_without": ratio(with_drafts, without),
            "drafted": one.drafted,
            "accepted": one.accepted,
        }
    finish("speculation", record, described, arguments)


def _encoder(tokenizer: object, vocab_size: int) -> Callable[[str], list[int]]:
    return lambda text: [token % vocab_size for token in tokenizer.encode(text)]  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()

"""What ``complete`` is asked for."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mistral_mlx.cli.models.opening import check_parallel
from mistral_mlx.cli.terminal.thoughts import SHOW, Thoughts
from mistral_mlx.errors import OptionError, shown
from mistral_mlx.generation.drafts import MAX_DRAFT, Drafter
from mistral_mlx.prompt.official import SystemContent
from mistral_mlx.sampling.options import MAX_SEED, SamplingOptions
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.tokenizer.choose import Tokenizer

from .output import JsonlOutput, JsonOutput, Output, TextOutput
from .prompt import Prompt

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint
    from mistral_mlx.session.kept import KeptPrompts

MAX_SAMPLES = 1000


@dataclass(frozen=True)
class Job:
    """What to complete and how to show it. Raises OptionError for what cannot go together."""

    prompt: Prompt
    name: str  # of the model, as the user gave it
    samplers: list[Sampler]  # one per answer
    max_tokens: int
    started: float  # time.perf_counter() when the process began
    stop: list[str] = field(default_factory=list)
    n_logprobs: int | None = None
    as_json: bool = False
    as_jsonl: bool = False
    extract: bool = False
    stream: bool = True
    stats: bool = False
    fail_on_length: bool = False
    reasoning: str | None = None  # show or hide; None: as stderr is a terminal or not
    constraint: "Constraint | None" = None
    draft: int = MAX_DRAFT
    drafter: Drafter | None = None  # what drafts; None: the text so far
    n_parallel: int = 0  # answers at a time; 0: as the memory has room
    other: Prompt | None = None  # the same prompt as another call may ask it; what both begin with is kept
    kept: "Callable[[], KeptPrompts] | None" = None  # None: neither taken up nor kept
    keep: Callable[[str], None] | None = None  # keeps the prompt with its answer, for a call that goes on

    def __post_init__(self) -> None:
        if self.as_json and self.as_jsonl:
            raise OptionError("--json and --jsonl exclude each other; leave one out")
        if self.n_logprobs is not None and self.n_logprobs < 0:
            raise OptionError(f"--logprobs is {self.n_logprobs}; it must be 0 or a positive number of tokens")
        if self.n_logprobs is not None and not (self.as_json or self.as_jsonl):
            raise OptionError("--logprobs needs --json or --jsonl to appear in")
        check_parallel(self.n_parallel)
        if self.constraint is not None and (self.extract or self.prompt.tools):
            other = "--extract" if self.extract else "--tools"
            raise OptionError(f"{other} and a form of the answer (--schema, --regex, --grammar) exclude each other")
        if self.reasoning not in (None, *SHOW):
            raise OptionError(f"--reasoning is {shown(self.reasoning)}; it must be {' or '.join(SHOW)}")

    def with_system(self, meaning: Callable[[str], SystemContent | None]) -> "Job":
        """Return this job with the system prompt that `meaning` makes of its text."""

        def meant(prompt: Prompt) -> Prompt:
            return replace(prompt, system=meaning(prompt.system)) if isinstance(prompt.system, str) else prompt

        return replace(self, prompt=meant(self.prompt), other=None if self.other is None else meant(self.other))

    def tells_schema(self, tokenizer: Tokenizer) -> bool:
        """Whether the prompt tells the model the schema of the answer."""
        return self.prompt.schema is not None and not self.prompt.continues(tokenizer)

    def output(self, *, quiet: bool) -> Output:
        """Return what writes the answers; `quiet` writes no reasoning."""
        if self.as_json:
            return JsonOutput(self.name, as_array=len(self.samplers) > 1)
        if self.as_jsonl:
            return JsonlOutput(self.name)
        is_shown = sys.stderr.isatty() if self.reasoning is None else self.reasoning == "show"
        return TextOutput(stream=self.stream, thoughts=Thoughts(hidden=quiet or not is_shown, sign=not quiet))


def make_samplers(options: SamplingOptions, n: int) -> list[Sampler]:
    """Return a sampler per answer, whose seeds follow each other. Raises OptionError if `n` is out of range."""
    if not 1 <= n <= MAX_SAMPLES:
        raise OptionError(f"--samples is {n}; it must be 1 to {MAX_SAMPLES}")
    first = Sampler(options)
    seeds = [(first.seed + i) % (MAX_SEED + 1) for i in range(1, n)]
    return [first, *(Sampler(options, seed=seed) for seed in seeds)]

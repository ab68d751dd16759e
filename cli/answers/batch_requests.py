"""What a line of ``batch`` asks of the model: its own words, and the defaults of all lines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING

from mistral_mlx.cli.options.answer import AnswerKnobs, read_values
from mistral_mlx.errors import OptionError
from mistral_mlx.prompt.official import SystemContent
from mistral_mlx.sampling.options import MAX_SEED
from mistral_mlx.sampling.sampler import Sampler

from .batch_files import Task
from .constraints import Wanted
from .prompt import Prompt
from .tool_choice import tool_choice_of

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint

OWN_KEYS = ("id", "prompt", "messages", "system", "prefill", "tools", "tool_choice", "schema")


@dataclass(frozen=True)
class Defaults:
    """What holds for every line that does not say otherwise."""

    options: AnswerKnobs
    system: SystemContent | None = None
    template: str | None = None
    raw: bool = False
    wanted: Wanted = field(default_factory=Wanted)  # of the answer
    schema_prompt: bool = True
    meaning: Callable[[str], SystemContent | None] = str  # of the text of a system prompt, such as @model

    def __post_init__(self) -> None:
        """Raise OptionError for what cannot go together before there is any work."""
        Prompt(system=self.system, template=self.template, raw=self.raw)
        _ = self.constraint

    @cached_property
    def constraint(self) -> "Constraint | None":
        """What the answer to a line must be that does not say otherwise."""
        return self.wanted.constraint()


@dataclass(frozen=True)
class Request:
    """A line of the input as it is asked of the model."""

    prompt: Prompt
    sampler: Sampler
    max_tokens: int
    stop: Sequence[str]
    draft: int = AnswerKnobs.draft
    constraint: "Constraint | None" = None


def request_of(task: Task, defaults: Defaults) -> Request:
    """Return what a line asks for. Raises OptionError if it cannot be asked."""
    value = task.value()
    if isinstance(value, str):
        value = {"prompt": value}
    elif isinstance(value, list):
        value = {"messages": value}
    elif not isinstance(value, dict):
        raise OptionError("the line is neither a text, nor a list of messages, nor an object")
    knobs = {key: value[key] for key in value if key not in OWN_KEYS}
    own = read_values(AnswerKnobs, knobs, "the line", also=OWN_KEYS)
    seed = defaults.options.seed
    own = ({} if seed is None else {"seed": (seed + task.index) % (MAX_SEED + 1)}) | own
    options = replace(defaults.options, **own)
    bound = _constraint(value, defaults)
    schema = bound.schema if bound is not None and defaults.schema_prompt else None
    prompt = replace(_prompt(value, defaults), reasoning_effort=options.reasoning_effort or None, schema=schema)
    if bound is not None and prompt.tools:
        raise OptionError("tools of the line and a schema exclude each other")
    return Request(prompt, Sampler(options), options.max_tokens, options.stop, options.draft, bound)


def _constraint(value: Mapping[str, object], defaults: Defaults) -> "Constraint | None":
    """Return what the answer to a line must be. Its schema is data: a schema, or a text, but never a file."""
    if "schema" not in value:
        return defaults.constraint
    from mistral_mlx.constraint.short_form import schema_of

    schema = value["schema"]
    return None if schema is None else Wanted(schema_of(schema) if isinstance(schema, str) else schema).constraint()


def _prompt(value: Mapping[str, object], defaults: Defaults) -> Prompt:
    for key in ("prompt", "system", "prefill"):
        if not isinstance(value.get(key, ""), str):
            raise OptionError(f"{key} of the line is not a text")
    text, messages, tools = value.get("prompt", ""), value.get("messages", []), value.get("tools", [])
    if bool(text) == bool(messages) or not isinstance(messages, list):
        raise OptionError("the line needs a prompt, which is a text, or messages, which are a list, and not both")
    if not isinstance(tools, list):
        raise OptionError("tools of the line is not a list")
    return Prompt(
        text=str(text),
        system=defaults.meaning(str(value["system"])) if "system" in value else defaults.system,
        prefill=str(value.get("prefill", "")).rstrip(" "),
        template=defaults.template,
        raw=defaults.raw,
        tools=tools or (),
        tool_choice=tool_choice_of(value.get("tool_choice"), tools, "tool_choice of the line"),
    ).answering(messages)

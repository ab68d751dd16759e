"""Whether an answer calls tools: what a user says about it, on the command line or in a batch line."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.prompt.tools import checked_tools, tool_names

MODES: tuple[Literal["auto", "required", "none"], ...] = ("auto", "required", "none")


@dataclass(frozen=True)
class ToolChoice:
    """Calls as the model likes (auto), one or more (required), or none; with `name` one call of this tool."""

    mode: Literal["auto", "required", "none"] = "auto"
    name: str | None = None


AUTO = ToolChoice()


def tool_choice_of(value: object, tools: Sequence[Mapping[str, object]], place: str) -> ToolChoice:
    """Return what `value` says: a mode, the name of a tool, or OpenAI's ``{"type": "function", "function": {"name"}}``.

    None is auto. Raises OptionError, naming `place`, if it is none of these, or if no tools are offered.
    """
    if value is None:
        return AUTO
    if not tools:
        raise OptionError(f"{place} is {shown(value)}, and no tools are offered; offer some, or leave it out")
    for mode in MODES:
        if value == mode:
            return ToolChoice(mode)
    names = tool_names(checked_tools(tools))
    function = value.get("function") if isinstance(value, Mapping) else None
    name = function.get("name") if isinstance(function, Mapping) else value
    if not isinstance(name, str) or name not in names:
        choices = [*MODES, *(shown(name) for name in names)]
        raise OptionError(f"{place} is {shown(value)}; it must be one of {', '.join(choices)}")
    return ToolChoice("required", name)

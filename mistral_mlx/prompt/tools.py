"""Tools that a model may call, and calls of them, in OpenAI's form; checked, and made what a prompt writes.

Nothing here calls anything.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mistral_mlx.errors import OptionError, shown

from .schema import schema_fault

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
NAMES = "1 to 64 letters, digits, '_' and '-'"


@dataclass(frozen=True)
class ToolCall:
    """A call that a model has written. `arguments` is what their JSON means, or the text itself if it is no JSON."""

    name: str
    arguments: object
    id: str | None = None


def checked_tools(tools: object) -> list[dict[str, object]]:
    """Return the definitions as a prompt writes them. Raises OptionError for one that cannot be.

    A definition is ``{"type": "function", "function": {"name", "description", "parameters"}}``; other keys are left
    out, as mistral-common leaves them out.
    """
    if tools is None:
        return []
    if not isinstance(tools, Sequence) or isinstance(tools, str):
        raise OptionError(f"tools is {shown(tools)}; give a list of definitions")
    return [_checked_tool(tool, f"tool {i}") for i, tool in enumerate(tools, start=1)]


def _checked_tool(tool: object, place: str) -> dict[str, object]:
    function = tool.get("function") if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or not isinstance(function, Mapping):
        raise OptionError(f'{place} is {shown(tool)}; give {{"type": "function", "function": {{"name": …}}}}')
    if tool.get("type", "function") != "function":
        raise OptionError(f"{place} is of the type {shown(tool['type'])}; only functions can be called")
    name = checked_name(function.get("name"), place)
    description, parameters = function.get("description"), function.get("parameters")
    description = "" if description is None else description
    parameters = {} if parameters is None else parameters
    if not isinstance(description, str):
        raise OptionError(f"the description of the tool {name} is {shown(description)}; give a text")
    if not isinstance(parameters, Mapping):
        raise OptionError(f"the parameters of the tool {name} are {shown(parameters)}; give a JSON Schema")
    if fault := schema_fault(parameters):
        raise OptionError(f"the tool {name} cannot be offered: {fault}")
    written = {"name": name, "description": description, "parameters": _as_json(parameters, f"the tool {name}")}
    return {"type": "function", "function": written}


def tool_names(tools: Sequence[Mapping[str, object]]) -> list[str]:
    """Return the names of checked definitions. Raises OptionError if two are the same."""
    names = [str(tool["function"]["name"]) for tool in tools]  # type: ignore[index]
    if twice := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise OptionError(f"two tools have the name {twice}; give each its own")
    return names


def checked_calls(calls: object, place: str) -> tuple[ToolCall, ...]:
    """Return the calls under ``tool_calls`` of the message `place`, in OpenAI's form or as `complete` writes them.

    Raises OptionError for one that cannot be.
    """
    if calls is None:
        return ()
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        raise OptionError(f"the tool_calls of {place} are {shown(calls)}; give a list of calls")
    return tuple(_checked_call(call, place) for call in calls)


def _checked_call(call: object, place: str) -> ToolCall:
    if not isinstance(call, Mapping):
        raise OptionError(f"a tool call of {place} is {shown(call)}; give id, and function with name and arguments")
    if call.get("type", "function") != "function":
        raise OptionError(f"a tool call of {place} is of the type {shown(call['type'])}; only functions can be called")
    function = call.get("function", call)
    if not isinstance(function, Mapping):
        raise OptionError(f"the function in a tool call of {place} is {shown(function)}; give name and arguments")
    name, call_id = checked_name(function.get("name"), place), call.get("id")
    arguments = function.get("arguments")
    if not isinstance(call_id, str | None):
        raise OptionError(f"the id of a tool call of {place} is {shown(call_id)}; give a text")
    if isinstance(arguments, Mapping):
        return ToolCall(name, _as_json(arguments, f"a tool call of {place}"), call_id)
    if not isinstance(arguments, str | None):
        raise OptionError(f"the arguments in a tool call of {place} are {shown(arguments)}; give an object or its JSON")
    return ToolCall(name, meaning_of(arguments or "{}"), call_id)


def checked_name(name: object, place: str) -> str:
    """Return the name of a function. Raises OptionError if it is none."""
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise OptionError(f"the name of the function in {place} is {shown(name)}; give {NAMES}")
    return name


def meaning_of(text: str) -> object:
    """Return what the JSON `text` means, or `text` itself if it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def written(value: object) -> str:
    """Return `value` as Mistral's prompts write JSON."""
    return json.dumps(value, ensure_ascii=False)


def _as_json(value: Mapping[str, object], what: str) -> object:
    """Return a copy of plain JSON values. Raises OptionError if that is impossible."""
    try:
        return json.loads(json.dumps(dict(value)))
    except (TypeError, ValueError, RecursionError) as error:
        raise OptionError(f"{what} cannot be written as JSON: {shown(str(error))}") from error

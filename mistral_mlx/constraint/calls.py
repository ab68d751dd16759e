"""Calls of tools as grammars, in each of Mistral's formats: name and arguments are always those of a definition.

Control tokens are named by their ids, so a text cannot stand for one. What these grammars allow, `prompt.calls` reads.
"""

import json
from collections.abc import Mapping, Sequence

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.prompt.tools import checked_tools, tool_names
from mistral_mlx.tokenizer.base import Tokenizer
from mistral_mlx.tokenizer.detokenizer import LeadingSpace
from mistral_mlx.tokenizer.versions import CALL_TOKENS, TOOL_CALLS, number

from .limits import SCHEMA_LIMITS, check_grammar
from .schema import WHITESPACE, schema_grammar

MAX_CALLS = 32  # in one answer, so that it ends
NO_ARGUMENTS = {"type": "object", "properties": {}, "additionalProperties": False}
ARGS, ID = CALL_TOKENS


def calls_grammar(
    tokenizer: Tokenizer, version: str, tools: Sequence[Mapping[str, object]], name: str | None = None
) -> str:
    """Return the grammar of 1 to 32 calls from [TOOL_CALLS] on; of one call of the tool `name`, if it is given.

    `version` is v2 to v15. `tools` are definitions in OpenAI's form. The arguments are a JSON object that the
    parameters of the tool allow; only an empty one for a tool that has no parameters.

    Raises OptionError for tools that cannot be bound, or if the model has no token for calls.
    """
    checked = checked_tools(tools)
    names = tool_names(checked)
    if name is not None and name not in names:
        raise OptionError(f"there is no tool {shown(name)}; choose one of {', '.join(names)}")
    arguments = [_arguments(own, tool) for own, tool in zip(names, checked, strict=True) if name in (None, own)]
    make = _list if number(version) < 11 else _calls
    rules = make(tokenizer, version, names if name is None else [name], 1 if name else MAX_CALLS)
    calls = {"lark_grammar": "\n".join([*rules, f"WS: /{WHITESPACE}/", ""])}
    named = [{**grammar, "name": f"arguments_{i}"} for i, grammar in enumerate(arguments)]
    grammar = json.dumps({"grammars": [calls, *named]})
    check_grammar(grammar, "the grammar of the tools", SCHEMA_LIMITS)
    return grammar


def _list(tokenizer: Tokenizer, version: str, names: Sequence[str], most: int) -> list[str]:
    """Return the rules of ``[TOOL_CALLS][{"name": …, "arguments": …, "id": …}, …]``; v2 has no id, v3 and v7 may."""
    key = {text: rf'"\"{text}\"" WS ":" WS' for text in ("name", "arguments", "id")}
    tools = " | ".join(rf'"\"{name}\"" WS "," WS {key["arguments"]} @arguments_{i}' for i, name in enumerate(names))
    own_id = "" if version == "v2" else rf'(WS "," WS {key["id"]} /"[a-zA-Z0-9]{{9}}"/)?'
    more = f'(WS "," WS call){{0,{most - 1}}}' if most > 1 else ""
    return [
        f'start: {_token(tokenizer, TOOL_CALLS)} {_blank(tokenizer)} WS "[" WS call {more} WS "]"',
        f'call: "{{" WS {key["name"]} ({tools}) {own_id} WS "}}"',
    ]


def _calls(tokenizer: Tokenizer, version: str, names: Sequence[str], most: int) -> list[str]:
    """Return the rules of ``[TOOL_CALLS]name[ARGS]{…}``, repeated; in v11 an id may follow the name: [CALL_ID]id."""
    blank = _blank(tokenizer)
    own_id = f"({_token(tokenizer, ID)} {blank} /[a-zA-Z0-9]{{9}}/)?" if version == "v11" else ""
    args = _token(tokenizer, ARGS)
    tools = " | ".join(f'"{name}" {own_id} {args} {blank} WS @arguments_{i}' for i, name in enumerate(names))
    return [f"start: call{{1,{most}}}", f"call: {_token(tokenizer, TOOL_CALLS)} {blank} ({tools})"]


def _arguments(name: str, tool: Mapping[str, object]) -> dict[str, object]:
    """Return the grammar of the arguments as llguidance lists it. Raises OptionError, naming the tool."""
    function = tool["function"]
    assert isinstance(function, Mapping), name
    schema = function["parameters"] or NO_ARGUMENTS
    kind = schema.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise OptionError(f"the parameters of the tool {name} are of the type {shown(kind)}; it must be object")
    try:
        return {"lark_grammar": schema_grammar({**schema, "type": "object"})}
    except OptionError as error:
        raise OptionError(f"calls of the tool {name} cannot be bound: {error}") from error


def _token(tokenizer: Tokenizer, text: str) -> str:
    """Return a control token as a grammar has it. Raises OptionError if the model has none."""
    if text not in tokenizer.control:
        raise OptionError(f"this model has no {text} token, which calls of tools need")
    return f"<[{tokenizer.control[text]}]>"


def _blank(tokenizer: Tokenizer) -> str:
    """Return what may stand before a text that follows a control token: the vocabulary's own blank, if it has one."""
    return "" if tokenizer.leading is LeadingSpace.KEPT else '" "?'

"""Tools for models with random weights, whose answers end soon, and the calls that mistral-common reads in ids."""

import json

from mistral_common.experimental.tools import _decode_tool_calls, _split_content_and_tool_calls


def tool(name, parameters=None):
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


NUMBER = {"type": "integer", "minimum": -99, "maximum": 99}
ADD = {"type": "object", "properties": {"a": NUMBER, "b": NUMBER}, "required": ["a"], "additionalProperties": False}
FIND = {
    "properties": {
        "where": {"enum": ["é\n", "[ARGS]", 'a"b']},
        "how": {"$ref": "#/$defs/how"},
        "what": {"type": "string", "maxLength": 4},
    },
    "required": ["how"],
    "additionalProperties": False,
    "$defs": {"how": {"anyOf": [{"type": "boolean"}, {"type": "array", "items": {"type": "null"}, "maxItems": 2}]}},
}
NOTHING = {"type": "object", "maxProperties": 0}  # what a tool without parameters takes
TOOLS = [tool("add", ADD), tool("find_it-2", FIND), tool("now")]
SCHEMAS = {"add": ADD, "find_it-2": FIND, "now": NOTHING}


def read_by_mistral_common(ids, tokenizer):
    """Return the text and the name, the arguments and the id of each call; the id is "null" for a call without one."""
    inner = tokenizer.instruct_tokenizer.tokenizer
    text, parts = _split_content_and_tool_calls(ids, inner.get_special_token("[TOOL_CALLS]"))
    found = _decode_tool_calls(parts, inner)
    return inner.decode(text), [(made.function.name, json.loads(made.function.arguments), made.id) for made in found]

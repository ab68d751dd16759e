"""The short form of a schema: `name, age int, bio: one sentence`, as the program `llm` has it.

The fields stand between commas or, in a text of several lines, on lines of their own. A field is a name, its type if
that is not a text, and behind a colon what it means:

    name
    age int: in years
    tags list[str]
"""

import json
import re

from mistral_mlx.errors import OptionError, shown

from .limits import check_length

TYPES = {
    **dict.fromkeys(("str", "string"), "string"),
    **dict.fromkeys(("int", "integer"), "integer"),
    **dict.fromkeys(("float", "number"), "number"),
    **dict.fromkeys(("bool", "boolean"), "boolean"),
}
MAX_FIELDS = 500
_DATA = ("const", "enum", "default", "examples")  # keywords whose value is no schema
_JSON = re.compile(r"\s*(\{|\[|(true|false)\s*\Z)")


def schema_of(text: str) -> object:
    """Return the schema that a user wrote: JSON if it begins with `{` or is `true` or `false`, else the short form.

    Whether it is a valid schema is not checked here. Raises OptionError.
    """
    check_length(text, "the schema")
    if not _JSON.match(text):
        return schema_of_short_form(text)
    try:
        return json.loads(text)
    except RecursionError:
        raise OptionError("the schema is nested too deeply; give a flatter one") from None
    except ValueError as error:
        raise OptionError(f"the schema {shown(text, limit=40)} is not valid JSON: {error}") from error


def schema_of_short_form(text: str) -> dict[str, object]:
    """Return the schema of an object with the fields that `text` names, all required. Raises OptionError.

    `age int: in years` becomes `{"type": "integer", "description": "in years"}`. A description may hold a comma only
    if the fields stand on lines.
    """
    check_length(text, "the schema")
    lines = re.split(r"\r?\n", text.strip())
    fields = [field.strip() for field in (lines if len(lines) > 1 else text.split(","))]
    fields = [field for field in fields if field or len(lines) <= 1]  # lines may be empty, fields between commas not
    if len(fields) > MAX_FIELDS:
        raise OptionError(f"the schema has {len(fields):,} fields; give at most {MAX_FIELDS}")
    properties: dict[str, object] = {}
    for field in fields:
        name, schema = _field(field.rstrip(",") if len(lines) > 1 else field)
        if name in properties:
            raise OptionError(f"the schema has the field {shown(name)} twice; give each field a name of its own")
        properties[name] = schema
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def several(schema: object) -> dict[str, object]:
    """Return the schema of an object whose only field `items` is a list of what `schema` describes.

    Its references, such as `#/$defs/city`, are made to lead to where its parts lie now.
    """
    whole: dict[str, object] = {"type": "object", "required": ["items"], "additionalProperties": False}
    if isinstance(schema, dict):
        whole.update({"$schema": schema["$schema"]} if "$schema" in schema else {})
        schema = {key: value for key, value in schema.items() if key not in ("$schema", "$id")}
    return {**whole, "properties": {"items": {"type": "array", "items": _moved(schema, "#/properties/items/items")}}}


def _moved(value: object, place: str) -> object:
    """Return a part of a schema with the references of its document led to `place` in another one."""
    if isinstance(value, list):
        return [_moved(item, place) for item in value]
    if not isinstance(value, dict):
        return value
    moved = {key: item if key in _DATA else _moved(item, place) for key, item in value.items()}
    target = value.get("$ref")
    if isinstance(target, str) and (target == "#" or target.startswith("#/")):
        moved["$ref"] = place + target[1:]
    return moved


def _field(text: str) -> tuple[str, dict[str, object]]:
    """Return the name and the schema of one field."""
    head, _, description = text.partition(":")
    name, *types = head.split(None, 1)[:2] if head.strip() else ("",)
    if not name or name == "-":
        raise OptionError(f"the schema has a field without a name{_at(text)}; write, for example: name, age int")
    if marks := set(name) & set("{}[]()\"'/\\."):
        raise OptionError(
            f"the schema has the field {shown(name, limit=40)}; leave out {min(marks)}, or write a JSON Schema, "
            "which begins with {"
        )
    schema = _type(types[0].strip() if types else "str", name)
    if description := description.strip():
        schema["description"] = description
    return name, schema


def _at(text: str) -> str:
    return f" at {shown(text, limit=40)!r}" if text else ""


def _type(word: str, name: str) -> dict[str, object]:
    """Return the schema of a type: a word of TYPES, or a list of such, `list[int]` or `[int]`."""
    listed = re.fullmatch(r"(?:list)?\[(.*)\]|(list)", word, re.DOTALL)
    inner = (listed[1] if listed[1] is not None else "str").strip() if listed else word
    if inner not in TYPES:
        raise OptionError(
            f"the field {shown(name, limit=40)} has the type {shown(word, limit=40)}; "
            "write str, int, float, bool, or a list such as list[str]"
        )
    return {"type": "array", "items": {"type": TYPES[inner]}} if listed else {"type": TYPES[inner]}

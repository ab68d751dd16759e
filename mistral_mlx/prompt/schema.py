"""Checks that a value is a JSON Schema of draft 7; validates nothing against it.

mistral-common refuses a tool whose parameters are no schema; so do we, by the same rules (draft 7's own schema). The
jsonschema package would be a dependency for these few.
"""

import re
from collections.abc import Mapping

from mistral_mlx.errors import shown

MAX_DEPTH = 64
TYPES = ("array", "boolean", "integer", "null", "number", "object", "string")
SCHEMAS = ("additionalItems", "additionalProperties", "contains", "else", "if", "not", "propertyNames", "then")
MAPS = ("definitions", "patternProperties", "properties")  # of schemas
LISTS = ("allOf", "anyOf", "oneOf")  # of schemas, one at least
COUNTS = ("maxItems", "maxLength", "maxProperties", "minItems", "minLength", "minProperties")
NUMBERS = ("exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum")
TEXTS = ("$comment", "$id", "$ref", "$schema", "contentEncoding", "contentMediaType", "description", "format", "title")
FLAGS = ("readOnly", "uniqueItems")


def schema_fault(schema: object, where: str = "parameters", depth: int = 0) -> str | None:
    """Return what is wrong with `schema`, by the place of it; None if it is a schema."""
    if isinstance(schema, bool):
        return None
    if not isinstance(schema, Mapping):
        return f"{where} is {shown(schema)}, which is no schema"
    if depth > MAX_DEPTH:
        return f"{where} is nested more than {MAX_DEPTH} deep"
    for key, value in schema.items():
        if fault := _fault(str(key), value, f"{where}.{shown(key)}", depth + 1):
            return fault
    return None


def _fault(key: str, value: object, where: str, depth: int) -> str | None:
    if key in SCHEMAS:
        return schema_fault(value, where, depth)
    if key in LISTS or (key == "items" and isinstance(value, list)):
        return _of_list(value, where, depth)
    if key == "items":
        return schema_fault(value, where, depth)
    if key in MAPS or key == "dependencies":
        return _of_map(key, value, where, depth)
    return None if _is_right(key, value) else f"{where} is {shown(value)}, which draft 7 of JSON Schema does not allow"


def _of_list(value: object, where: str, depth: int) -> str | None:
    if not isinstance(value, list) or not value:
        return f"{where} is {shown(value)}; a list of schemas is expected"
    faults = (schema_fault(item, f"{where}[{i}]", depth) for i, item in enumerate(value))
    return next((fault for fault in faults if fault), None)


def _of_map(key: str, value: object, where: str, depth: int) -> str | None:
    if not isinstance(value, Mapping):
        return f"{where} is {shown(value)}; a schema for each name is expected"
    for name, item in value.items():
        if key == "patternProperties" and not _is_pattern(name):
            return f"{where} has {shown(name)}, which is no regular expression"
        if key == "dependencies" and isinstance(item, list):
            fault = None if _is_texts(item) else f"{where}.{shown(name)} is {shown(item)}; names are expected"
        else:
            fault = schema_fault(item, f"{where}.{shown(name)}", depth)
        if fault:
            return fault
    return None


def _is_right(key: str, value: object) -> bool:
    """Return whether `key`, which holds no schema, may have this value; unknown keys may have any."""
    if key == "type":
        listed = value if isinstance(value, list) else [value]
        return bool(listed) and len(set(map(repr, listed))) == len(listed) and all(item in TYPES for item in listed)
    if key in COUNTS:
        return _is_number(value) and float(value) >= 0 and float(value).is_integer()  # type: ignore[arg-type]
    if key in NUMBERS:
        return _is_number(value)
    if key == "multipleOf":
        return _is_number(value) and float(value) > 0  # type: ignore[arg-type]
    if key in TEXTS:
        return isinstance(value, str)
    if key == "pattern":
        return _is_pattern(value)
    if key in FLAGS:
        return isinstance(value, bool)
    if key in ("enum", "examples"):
        return isinstance(value, list)
    return key != "required" or _is_texts(value)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value) and len(set(value)) == len(value)


def _is_pattern(value: object) -> bool:
    if not isinstance(value, str):
        return False
    try:
        re.compile(value)
    except (re.error, OverflowError, RecursionError):
        return False
    return True

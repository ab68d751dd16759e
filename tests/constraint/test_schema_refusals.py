"""Schemas that are refused, each in one line that names what is wrong, where, and what to do."""

import time
from threading import Thread

import pytest

from mistral_mlx.constraint.schema import checked_schema, schema_grammar
from mistral_mlx.errors import OptionError

REFUSED = {
    "unique": ({"properties": {"tags": {"uniqueItems": True}}}, "'uniqueItems' at properties.tags"),
    "contains": ({"type": "array", "contains": {"type": "string"}}, "'contains' at its top"),
    "not": ({"not": {"minimum": 3}}, "'not' at its top"),
    "if": ({"if": {"type": "string"}, "then": {"minLength": 3}}, "'if' at its top"),
    "dependencies": ({"dependencies": {"a": ["b"]}}, "'dependencies' at its top, which cannot be guaranteed; write"),
    "unevaluated properties": ({"unevaluatedProperties": False}, "'unevaluatedProperties'"),
    "unevaluated items": ({"items": {"unevaluatedItems": False}}, "'unevaluatedItems' at items"),
    "dynamic reference": ({"$dynamicRef": "#a"}, "'$dynamicRef'"),
    "oneOf that overlaps": ({"oneOf": [{"type": "integer"}, {"type": "number"}]}, "branches 0 and 1 may both hold"),
    "oneOf by required": ({"oneOf": [{"required": ["a"]}, {"required": ["b"]}]}, "branches 0 and 1 may both hold"),
    "a step of thirds": ({"type": "integer", "multipleOf": 3}, "'multipleOf' of 3"),
    "a step of hundredths": ({"type": "number", "multipleOf": 0.01, "minimum": 0}, "'multipleOf' of 0.01"),
    "whole tenths": ({"type": "integer", "multipleOf": 0.1}, "'multipleOf' of 0.1"),  # 3 / 0.1 is no whole number
    "a long least length": ({"type": "string", "pattern": "^(a|b)*$", "minLength": 1001}, "'minLength' of 1,001"),
    "branches that draft 4 does not tell apart": (
        {"$schema": "http://json-schema.org/draft-04/schema#", "oneOf": [{"const": 1}, {"const": 2}]},
        "branches 0 and 1 may both hold",
    ),
    "branches that draft 7 does not tell apart": (
        {
            "$schema": "http://json-schema.org/draft-07/schema#",
            "oneOf": [{"$ref": "#/definitions/a", "const": 1}, {"$ref": "#/definitions/a", "const": 2}],
            "definitions": {"a": {"type": "integer"}},
        },
        "branches 0 and 1 may both hold",
    ),
    "many distinct names": ({"type": "object", "minProperties": 2}, "'minProperties' of 2"),
    "unknown format": ({"type": "string", "format": "regex"}, "the format regex"),
    "unknown draft": ({"$schema": "http://example.com/draft"}, "the $schema"),
    "options": ({"items": {"x-guidance": {"lenient": True}}}, "'x-guidance' at items"),
    "options at the top": ({"x-guidance": {"lenient": True}, "type": "string"}, "'x-guidance' at its top"),
    "another file": ({"$ref": "other.json"}, '$ref "other.json"'),
    "the network": ({"$ref": "https://json-schema.org/draft/2020-12/schema"}, "only references inside the schema"),
    "nothing there": ({"$ref": "#/$defs/x"}, "nothing is there"),
    "an inner base": ({"items": {"$id": "http://example.com/a"}}, "'$id' at items"),
    "a list of items": ({"items": [{"type": "string"}]}, "'items' with a list"),
    "additional items": ({"additionalItems": False}, "'additionalItems'"),
    "a number for a schema": ({"properties": {"a": 3}}, "has 3 at properties.a"),
    "unknown type": ({"type": "text"}, "'type' with text"),
    "old exclusive bound": ({"type": "number", "exclusiveMinimum": True}, "'exclusiveMinimum' with True"),
    "negative length": ({"type": "string", "minLength": -1}, "'minLength' with -1"),
    "half a length": ({"type": "string", "maxLength": 1.5}, "'maxLength' with 1.5"),
    "huge length": ({"type": "string", "minLength": 10**9}, "'minLength' of 1000000000"),
    "no number": ({"minimum": float("nan")}, "a number out of range at minimum"),
    "endless number": ({"maximum": float("inf")}, "a number out of range at maximum"),
    "long number": ({"const": 10**400}, "a number out of range at const"),
    "half a character": ({"const": "\ud800"}, "half a surrogate pair at const"),
    "no JSON": ({"const": {1, 2}}, "a value of type set at const"),
    "keys that are no texts": ({1: 2}, "the key 1 at its top"),
    "lookahead": ({"type": "string", "pattern": "(?=a)b"}, "lookaround"),
    "back reference": ({"type": "string", "pattern": r"(a)\1"}, r"has \1"),
    "word boundary": ({"type": "string", "pattern": r"\ba"}, r"has \b"),
    "open group": ({"type": "string", "pattern": "(a"}, "a ( without its )"),
    "many repetitions": ({"type": "string", "pattern": "(a{1000}){1000}"}, "repeats more than"),
    "deep pattern": ({"type": "string", "pattern": "(" * 900}, "groups inside each other"),
    "long pattern": ({"type": "string", "pattern": "a" * 2000}, "longer than"),
    "patterns that multiply": ({"allOf": [{"pattern": "a.{9}b"}, {"pattern": "c.{9}d"}]}, "too hard to join"),
    "a list": ([1], "give a JSON Schema"),
    "a text": ("{}", "give a JSON Schema"),
}

IMPOSSIBLE = {
    "false": False,
    "exclusive kinds": {"allOf": [{"type": "string"}, {"type": "integer"}]},
    "crossed bounds": {"type": "integer", "minimum": 3, "maximum": 2},
    "no integer between": {"type": "integer", "exclusiveMinimum": 1, "exclusiveMaximum": 2},
    "crossed lengths": {"type": "string", "minLength": 3, "maxLength": 2},
    "a constant of another type": {"type": "string", "const": 1},
    "a constant against a pattern": {"const": "b", "pattern": "^a"},
    "patterns that exclude each other": {"type": "string", "allOf": [{"pattern": "^a"}, {"pattern": "^b"}]},
    "a required property that cannot be": {"type": "object", "properties": {"a": False}, "required": ["a"]},
    "too many required": {"type": "object", "required": ["a", "b"], "maxProperties": 1},
    "endless recursion": {"type": "object", "properties": {"a": {"$ref": "#"}}, "required": ["a"]},
    "endless list": {"type": "array", "items": {"$ref": "#"}, "minItems": 1},
    "an empty enum": {"enum": []},
    "not anything": {"not": {}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_guaranteed_is_refused_by_name(name):
    schema, words = REFUSED[name]
    for read in (schema_grammar, checked_schema):
        with pytest.raises(OptionError) as caught:
            read(schema)
        assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_schema_without_any_answer_is_refused_at_once(name):
    with pytest.raises(OptionError, match="allows no answer at all"):
        schema_grammar(IMPOSSIBLE[name])


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#"},
        {"allOf": [{"$ref": "#"}]},
        {"anyOf": [{"type": "null"}, {"$ref": "#"}]},
        {"anyOf": [{"type": "null"}, {"allOf": [False, {"$ref": "#"}]}]},
    ],
)
def test_a_reference_that_leads_to_itself_is_refused(schema):
    with pytest.raises(OptionError, match="refers to itself at"):
        schema_grammar(schema)


def test_references_to_one_place_are_one_rule():
    """Each of them used to be a rule of its own, and these a circle of 100."""
    lists = [{"type": "array", "items": {"$ref": "#/$defs/e"}, "maxItems": i} for i in range(1, 100)]
    assert schema_grammar({"$ref": "#/$defs/e", "$defs": {"e": {"anyOf": lists}}})


def nested(key: str, depth: int) -> dict:
    schema: dict = {}
    for _ in range(depth):
        schema = {key: schema}
    return schema


def chain(n: int, last: str) -> dict:
    definitions: dict = {
        f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}}} for i in range(n)
    }
    return {"$ref": "#/$defs/d0", "$defs": {**definitions, f"d{n}": {"$ref": last} if last else {"type": "string"}}}


def circle_of_values() -> dict:
    schema: dict = {"type": "object"}
    schema["properties"] = {"a": schema}
    return schema


def doubled(depth: int) -> dict:
    schema: dict = {"type": "string"}
    for _ in range(depth):
        schema = {"allOf": [schema, schema]}
    return schema


def product_of(n: int) -> dict:
    return {"allOf": [{"anyOf": [{"required": [f"{i} {j}"]} for j in range(n)]} for i in range(n)]}


HOSTILE = {
    "deep": nested("items", 100_000),
    "deep in what is no schema": nested("default", 100_000),
    "a circle of values": circle_of_values(),
    "doubled": doubled(40),
    "products": product_of(20),
    "a long circle": chain(3000, "#/$defs/d0"),
    "many values": {"enum": list(range(100_000))},
    "long texts": {"const": "a" * 1_000_000},
    "many properties to count": {"properties": {f"{i}": True for i in range(5000)}, "maxProperties": 2000},
    "many dependents": {"dependentRequired": {f"{i}": ["a"] for i in range(100)}},
    "many branches": {"oneOf": [{"type": "object", "properties": {f"{i}": {"const": i}}} for i in range(3000)]},
    "many patterns": {"type": "object", "patternProperties": {f"^{i}": True for i in range(2000)}},
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_schema_costs_no_more_than_a_moment(name):
    started = time.process_time()
    with pytest.raises(OptionError) as caught:
        schema_grammar(HOSTILE[name])
    assert time.process_time() - started < 2
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_long_references_do_not_exhaust_a_small_stack():
    """The reader of grammars calls itself for a rule in a rule; 1,000 references used to end the process."""
    import threading

    made = []
    before = threading.stack_size(512 << 10)
    try:
        thread = Thread(target=lambda: made.append(schema_grammar(chain(3000, ""))))
        thread.start()
    finally:
        threading.stack_size(before)
    thread.join()
    assert len(made) == 1

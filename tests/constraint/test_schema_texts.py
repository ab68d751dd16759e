"""Texts at the edges: spellings of strings and keys, numbers that round, patterns that are read in two ways."""

import json
import re
from random import Random

import pytest
from helpers.byte_tokens import accepts, matcher, walk
from jsonschema import Draft202012Validator, FormatChecker

from mistral_mlx.constraint.json_schema.expression import PatternError
from mistral_mlx.constraint.json_schema.formats import FORMATS
from mistral_mlx.constraint.json_schema.search import searched
from mistral_mlx.constraint.schema import schema_grammar

OPEN = {"type": "object", "properties": {"a": {"type": "integer"}}, "additionalProperties": {"type": "string"}}
BELOW_ONE = {"type": "number", "minimum": 0, "exclusiveMaximum": 1}


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, r'"\u0061"'),  # every character has one spelling, so every key has
        ({"type": "string"}, r'"\/"'),
        ({"type": "string"}, r'"\ud800"'),  # json.loads makes half a character of it, which no file can hold
        ({"type": "string"}, '"\x01"'),
        ({"type": "string"}, r'"\u0001"'),
        ({"type": "string"}, '"\x7f"'),
        ({"type": "string", "minLength": 2}, r'"\n"'),
        (OPEN, '{"a":1,"a":2}'),
        (OPEN, r'{"a":1,"\u0061":"x"}'),
        (OPEN, '{"b":"x","a":1}'),
        (OPEN, '{"a":"x"}'),
        (BELOW_ONE, "0.99999999999999999"),  # read as 1.0
        (BELOW_ONE, "9e-1"),
        (BELOW_ONE, "-0"),
        (BELOW_ONE, "1"),
        ({"type": "number", "exclusiveMinimum": 0}, "0." + "0" * 400 + "1"),  # read as 0.0
        ({"type": "number"}, "1e999"),  # read as infinity
        ({"type": "integer"}, "9" * 5000),  # more digits than Python reads
        ({"type": "integer"}, "1e2"),
        ({"type": "number", "multipleOf": 0.01, "minimum": 0, "maximum": 1}, "0.07"),  # 7.000000000000001 times 0.01
        ({"const": 1}, "1.00"),
        ({"const": {"a": 1, "b": 2}}, '{"b":2,"a":1}'),
        ({}, "[" * 20 + "]" * 20),
        ({}, "NaN"),
    ],
)
def test_such_a_text_is_not_allowed(schema, text):
    assert not accepts(schema_grammar(schema), text)


@pytest.mark.parametrize(
    ("schema", "text"),
    [
        ({"type": "string"}, '"é😀\\n\\"\\\\ / \\t\\b\\f\\r"'),
        ({"const": "\u0001\x7f\u2028"}, '"\\u0001\x7f\u2028"'),
        (OPEN, '{"a":1,"b":"x","c":"y"}'),
        (BELOW_ONE, "0.999999999999999"),
        (BELOW_ONE, "0.0"),
        ({"type": "number", "minimum": 0.1, "maximum": 0.3}, "0.1"),
        ({"type": "number", "minimum": 0.1, "maximum": 0.3}, "0.3"),
        ({"type": "number", "exclusiveMinimum": 0}, "0.000000000000001"),
        ({"type": "number"}, "-12.5e-07"),
        ({"type": "integer", "minimum": 10**20, "maximum": 10**20 + 5}, str(10**20 + 5)),
        ({"type": "number", "multipleOf": 0.25}, "-3.75"),
        ({}, "[" * 12 + "]" * 12),
    ],
)
def test_such_a_text_is_allowed(schema, text):
    grammar = schema_grammar(schema)
    assert accepts(grammar, text)
    Draft202012Validator(schema).validate(json.loads(text))


PATTERNS = [
    "^a+$", "a", "(^a|b$)", r"^\d{2,3}-\w+$", r"[^a-c\s]", r"\S+", "^$", "", "a|^b$", r"^[\w.-]+@[\w-]+\.[a-z]{2,}$",
    "^.*$", r"^\W$", r'["\\]', r'^[^"]*$', r"\/", "^(?:a|(?:bc)?)+$", r"^\u00e9$", r"^[\x00-\x1f]$", "^(?P<x>a)b{2}$",
    "^a{2,}?$", r"^\D$", "{a}", "^[a-]$", r"^[\]^-]$", "^a{0}$", "^(a$|^b)", r"\x61\.", "^[^\\W]$",
]  # fmt: skip
TEXTS = [
    "", "a", "b", "ab", "aaa", "12-x", "12-é", "\n", "a\n", "b\n", "é", "x y", '"', "\\", "/", "abc", " ", "\t",
    "a.b@c.de", "bcbc", "\u2028", "٣", "😀", "abb", "aa", "{a}", "-", "]", "^", "\u00a0", "\x1c", "\u180e", "a.",
]  # fmt: skip
SURE = re.compile(r"[ -~]*")


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_is_read_as_python_reads_it_or_more_strictly(pattern):
    """The narrow form may leave out what the two standards read differently, the wide one must not."""
    narrow, wide = (f'start: T\nT: /"{searched(pattern, wide=wide)}"/' for wide in (False, True))
    for text in TEXTS:
        found = re.search(pattern, text) is not None
        spelled = json.dumps(text, ensure_ascii=False)
        assert not accepts(narrow, spelled) or found, text
        assert not found or accepts(wide, spelled), text
        if SURE.fullmatch(text):
            assert accepts(narrow, spelled) == found, text


@pytest.mark.parametrize(
    "pattern",
    ["(?=a)", "(?<=a)b", "(?i)a", r"\1", r"\b", r"\p{L}", r"\Z", r"\cA", "(a", "a)", "a**", "a*+", "a{2}{3}", "a{,3}",
     "[b-a]", r"[\w-z]", "[]a]", "[^]", "a^b", "a$b", "a{3,2}", "*a", r"\ud83d", "\\", "[a", r"\x1", "(?<n>a)"],
)  # fmt: skip
def test_what_is_not_read_alike_everywhere_is_refused(pattern):
    with pytest.raises(PatternError):
        searched(pattern, wide=False)


@pytest.mark.parametrize("name", FORMATS)
def test_texts_of_a_format_are_what_it_says(name):
    start, rng = matcher(schema_grammar({"type": "string", "format": name})), Random(name)
    judge = Draft202012Validator({"format": name}, format_checker=Draft202012Validator.FORMAT_CHECKER)
    for _ in range(20):
        text = walk(start, rng, patience=20)
        if text is not None:
            judge.validate(json.loads(text))


@pytest.mark.parametrize("day", ["0000-01-01", "1900-02-29", "2023-02-29", "2023-04-31", "2023-00-10", "2023-10-00"])
def test_a_day_that_never_was_is_no_date(day):
    assert not accepts(schema_grammar({"type": "string", "format": "date"}), f'"{day}"')
    assert not accepts(schema_grammar({"type": "string", "format": "date-time"}), f'"{day}T00:00:00Z"')
    assert not FormatChecker().conforms(day, "date")


@pytest.mark.parametrize("day", ["2000-02-29", "2024-02-29", "9999-12-31", "0001-01-01", "2023-04-30"])
def test_a_day_of_the_calendar_is_a_date(day):
    assert accepts(schema_grammar({"type": "string", "format": "date"}), f'"{day}"')


def test_keys_come_in_the_order_of_the_schema():
    schema = {
        "allOf": [{"properties": {"b": True}, "required": ["b"]}],
        "type": "object",
        "properties": {"z": True, "a": True},
        "required": ["z", "a", "c"],
        "additionalProperties": True,
    }
    grammar = schema_grammar(schema)
    assert accepts(grammar, '{"b":1,"z":1,"a":1,"c":1,"x":1}')
    assert not accepts(grammar, '{"z":1,"b":1,"a":1,"c":1}') and not accepts(grammar, '{"b":1,"a":1,"z":1,"c":1}')


def test_equal_parts_of_a_schema_become_one_rule():
    """Without that, 100 branches of 100 properties were more symbols than llguidance has numbers for."""
    names = [f"k{i}" for i in range(100)]
    properties = {name: {"type": "integer"} for name in names}
    schema = {"type": "object", "properties": properties, "anyOf": [{"required": [name]} for name in names]}
    grammar = schema_grammar(schema)
    assert accepts(grammar, '{"k7":1,"k70":2}') and not accepts(grammar, "{}")

"""The short form of a schema: fields with types and descriptions."""

import pytest
from jsonschema import Draft202012Validator

from mistral_mlx.constraint.short_form import schema_of, schema_of_short_form, several
from mistral_mlx.errors import OptionError


def properties(text):
    schema = schema_of_short_form(text)
    assert schema["required"] == list(schema["properties"])
    assert schema["type"] == "object" and schema["additionalProperties"] is False
    return schema["properties"]


def test_fields_stand_between_commas():
    assert properties("name, age int, bio: one sentence") == {
        "name": {"type": "string"},
        "age": {"type": "integer"},
        "bio": {"type": "string", "description": "one sentence"},
    }


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_fields_stand_on_lines_and_their_descriptions_may_hold_commas(end):
    assert properties(end.join(["", "name", "", "age int: in years, or 0", "tags list,", ""])) == {
        "name": {"type": "string"},
        "age": {"type": "integer", "description": "in years, or 0"},
        "tags": {"type": "array", "items": {"type": "string"}},
    }


@pytest.mark.parametrize(
    ("word", "kind"),
    [
        *[("str", "string"), ("string", "string"), ("int", "integer"), ("integer", "integer")],
        *[("float", "number"), ("number", "number"), ("bool", "boolean"), ("boolean", "boolean")],
    ],
)
def test_types_have_the_words_of_python_and_of_json(word, kind):
    assert properties(f"a {word}") == {"a": {"type": kind}}
    assert properties(f"a list[{word}], b [{word}]")["b"] == {"type": "array", "items": {"type": kind}}


def test_a_description_may_hold_a_colon():
    assert properties("at: as 12:30")["at"]["description"] == "as 12:30"


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("age integr", "the field age has the type integr"),
        ("a list[list[int]]", "has the type list[list[int]]"),
        ("a int float", "has the type int float"),
        ("a, , b", "a field without a name"),
        ("a,", "a field without a name"),
        ("", "a field without a name"),
        (": one sentence", "a field without a name at ': one sentence'"),
        ("a, b, a int", "the field a twice"),
        ("['a']", "leave out '"),
        (", ".join(f"f{i}" for i in range(501)), "501 fields"),
        ("a" * 200_001, "200,001 characters"),
    ],
)
def test_faults_of_the_short_form_are_named(text, word):
    with pytest.raises(OptionError) as refused:
        schema_of_short_form(text)
    assert word in str(refused.value)


def test_what_begins_with_a_brace_or_is_true_or_false_is_json():
    assert schema_of(' {"type": "null"}') == {"type": "null"}
    assert [schema_of("true"), schema_of(" false\n")] == [True, False]
    assert schema_of("truth bool") == schema_of_short_form("truth bool")


@pytest.mark.parametrize("text", ['{"a": 1', "{" * 100_000, '{"a":' * 30_000])
def test_json_that_is_none_is_refused(text):
    with pytest.raises(OptionError, match=r"not valid JSON|nested too deeply"):
        schema_of(text)


def test_several_holds_a_list_of_what_the_schema_describes():
    judge = Draft202012Validator(several(schema_of("name")))
    assert judge.is_valid({"items": []})
    assert judge.is_valid({"items": [{"name": "a"}, {"name": "b"}]})
    assert not judge.is_valid({"items": [{"name": 1}]})
    assert not judge.is_valid({"items": [], "more": 1})
    assert not judge.is_valid({})


def test_references_of_a_schema_lead_to_the_same_parts_in_several():
    tree = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$defs": {"leaf": {"type": "integer"}},
        "type": "object",
        "properties": {"leaf": {"$ref": "#/$defs/leaf"}, "kids": {"type": "array", "items": {"$ref": "#"}}},
        "required": ["kids"],
        "enum": [{"kids": [], "$ref": "#"}, {"kids": [{"kids": []}]}, {"kids": [{}]}, {"kids": [], "leaf": 1}],
    }
    judge = Draft202012Validator(several(tree))
    assert several(tree)["$schema"] == tree["$schema"]
    assert judge.is_valid({"items": [{"kids": [], "leaf": 1}, {"kids": [], "$ref": "#"}]})
    assert not judge.is_valid({"items": [{"kids": [{}]}]})

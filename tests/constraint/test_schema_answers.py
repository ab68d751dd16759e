"""Schemas that are accepted: which texts their grammars allow, and that random answers fit the schema.

`own_schemas.jsonl` holds ours, among them some of pydantic's; `suite_schemas.jsonl` holds those of
JSON-Schema-Test-Suite (https://github.com/json-schema-org/JSON-Schema-Test-Suite, draft2020-12, MIT License,
Copyright (c) 2012 Julian Berman) whose answers can be guaranteed, with the instances that are allowed and refused.
With SCHEMA_WALKS=100 in the environment each schema gets so many random answers.
"""

import json
import os
from pathlib import Path
from random import Random
from typing import Literal

import pytest
from helpers.byte_tokens import accepts, matcher, walk
from helpers.random_schemas import random_schema
from jsonschema import Draft202012Validator
from jsonschema.validators import validator_for

from mistral_mlx.constraint.schema import checked_schema, schema_grammar
from mistral_mlx.errors import OptionError

HERE = Path(__file__).parent
FILES = ("own_schemas.jsonl", "suite_schemas.jsonl")
CASES = [json.loads(line) for name in FILES for line in (HERE / name).read_text("utf-8").strip().split("\n")]
N_WALKS = int(os.environ.get("SCHEMA_WALKS", "3"))
N_RANDOM = 40 * N_WALKS  # random schemas


def check_walks(schema: object, grammar: str, rng: Random, n: int) -> int:
    """Walk through a grammar; return how many of the walks ended. Each that did must be a valid answer."""
    judge = validator_for(schema, default=Draft202012Validator)
    start, ended = matcher(grammar), 0
    for _ in range(n):
        text = walk(start, rng)
        if text is not None:
            ended += 1
            value = json.loads(text.decode())
            json.dumps(value, allow_nan=False)
            judge(schema, format_checker=judge.FORMAT_CHECKER).validate(value)
    return ended


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_valid_answers_are_allowed_and_no_others(case):
    schema = case["schema"]
    grammar = schema_grammar(schema)
    for value in case["valid"]:
        assert accepts(grammar, json.dumps(value, ensure_ascii=False)), value
    for value in case["invalid"]:
        assert not accepts(grammar, json.dumps(value, ensure_ascii=False)), value
    check_walks(schema, grammar, Random(case["name"]), N_WALKS)


def test_the_files_hold_enough_schemas():
    assert len(CASES) >= 300 and sum(len(case["invalid"]) for case in CASES) >= 600


def test_answers_to_random_schemas_are_valid():
    rng = Random(7)
    accepted = ended = 0
    for _ in range(N_RANDOM):
        schema = random_schema(rng)
        try:
            grammar = schema_grammar(schema)
        except OptionError:
            continue
        accepted += 1
        ended += check_walks(schema, grammar, rng, 2)
    assert accepted > N_RANDOM // 3 and ended > accepted  # a refusal of everything would prove nothing


@pytest.mark.parametrize("style", [{"indent": 2}, {"indent": 4}, {"separators": (",", ":")}, {}])
def test_usual_styles_of_json_are_allowed(style):
    for case in CASES:
        if case["name"].startswith("joined: "):
            grammar = schema_grammar(case["schema"])
            for value in case["valid"]:
                assert accepts(grammar, json.dumps(value, ensure_ascii=False, **style)), value


@pytest.mark.parametrize(
    "text",
    ["[  1]", "[1  ]", "[1,\n\n1]", "[1, \n1]", "[\n1 \n]", " [1]", "[1] ", "[\t\t1]", "[" + "\n" + " " * 33 + "1]"],
)
def test_white_space_is_bounded(text):
    """A model that has nothing to say would otherwise write blanks for ever."""
    assert not accepts(schema_grammar({"type": "array"}), text)


def test_pydantic_takes_the_answers_to_its_own_schema():
    pydantic = pytest.importorskip("pydantic")

    class Part(pydantic.BaseModel):
        name: str = pydantic.Field(min_length=1, max_length=5)
        size: float = pydantic.Field(gt=0, lt=1)
        parts: list["Part"] = pydantic.Field(max_length=2)
        unit: set[Literal["m", "s"]]

    grammar = schema_grammar(Part.model_json_schema())
    start, rng = matcher(grammar), Random(3)
    texts = [text for _ in range(60) if (text := walk(start, rng)) is not None]
    assert len(texts) > 20
    for text in texts:
        Part.model_validate_json(text)


def test_a_schema_may_come_in_the_wrappers_of_an_interface():
    plain = {"type": "integer", "minimum": 3}
    named = {"name": "n", "strict": True, "schema": plain}
    for wrapped in (named, {"type": "json_schema", "json_schema": named}):
        assert checked_schema(wrapped) == plain and schema_grammar(wrapped) == schema_grammar(plain)


def test_the_name_of_an_unknown_format_is_no_rule():
    assert accepts(schema_grammar({"type": "string", "format": "phone"}), '"anything"')


def test_free_text_and_free_names_spell_no_character_by_its_number():
    for text in (r'"\u0001"', r'{"\u0001": 1}', r'["\u007f"]'):
        assert not accepts(schema_grammar(True), text), text
    assert not accepts(schema_grammar({"type": "object"}), r'{"\u0001": 1}')
    assert accepts(schema_grammar({"const": "\x01"}), r'"\u0001"')

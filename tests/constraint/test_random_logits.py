"""Answers with random logits follow their schema, whatever the tokenizer; SCHEMA_RUNS=10000 tries many more."""

import json
import os
from pathlib import Path

import jsonschema
import mlx.core as mx
import numpy as np
import pytest
from constraint.conftest import PADDING, new_guide

from mistral_mlx import Constraint, Sampler

N_RUNS = int(os.environ.get("SCHEMA_RUNS", "80"))  # of all tokenizers together
KINDS = ("v1", "v3", "tekken", "byte level")
MOST = 400  # tokens of an answer
SCHEMAS = [
    json.loads(line)
    for name in ("own_schemas.jsonl", "suite_schemas.jsonl")
    for line in (Path(__file__).with_name(name)).read_text("utf-8").split("\n")
    if line
]


class Random:
    """Random logits that lean towards the end of strings and lists, the more the longer the answer is."""

    def __init__(self, tokenizer, seed):
        pieces = [tokenizer.piece(i) or b"" for i in range(tokenizer.vocab_size)] + [b""] * PADDING
        self._closes = np.array([piece[:1] in b'"]}' and len(piece) == 1 for piece in pieces])
        self._closes[list(tokenizer.eos_ids)] = True
        self._rng = np.random.default_rng(seed)

    def __call__(self, n):
        logits = self._rng.normal(scale=3, size=len(self._closes)) + self._closes * (4 + n / 8)
        return mx.array(logits.astype(np.float32))


def answer(tokenizer, constraint, seed):
    """Return the text of an answer, None if it does not end."""
    guide, logits, ids = new_guide(constraint, tokenizer), Random(tokenizer, seed), []
    choose = guide.over(Sampler(temperature=seed % 2, seed=seed))
    while len(ids) < MOST:
        token = choose(logits(len(ids)), ids)
        if token in tokenizer.eos_ids:
            return tokenizer.decode(ids)
        ids.append(token)
        if guide.finished:
            return tokenizer.decode(ids)
    return None


def judge_of(schema):
    """Return jsonschema's validator of the first draft that the schema is written for."""
    for draft in (jsonschema.Draft202012Validator, jsonschema.Draft7Validator, jsonschema.Draft4Validator):
        if draft(draft.META_SCHEMA).is_valid(schema):
            return draft(schema, format_checker=draft.FORMAT_CHECKER)
    raise AssertionError(schema)


@pytest.mark.parametrize("kind", KINDS)
def test_every_finished_answer_follows_its_schema(tokenizers, kind):
    tokenizer, n_finished = tokenizers(kind), 0
    for n in range(n_runs := N_RUNS // len(KINDS)):
        case = SCHEMAS[(n * len(KINDS) + KINDS.index(kind)) * 7919 % len(SCHEMAS)]
        constraint = Constraint.from_schema(case["schema"])
        text = answer(tokenizer, constraint, n)
        if text is not None:
            n_finished += 1
            value = constraint.meaning(text)
            assert value == json.loads(text)
            judge_of(case["schema"]).validate(value)
    assert n_finished > n_runs * 0.8
    print(f"{kind}: {n_finished} of {n_runs} answers ended")


@pytest.mark.parametrize("kind", KINDS)
def test_valid_values_are_accepted_token_by_token_and_invalid_ones_are_not(tokenizers, kind):
    tokenizer = tokenizers(kind)
    for n in range(N_RUNS // len(KINDS)):
        case = SCHEMAS[(n * len(KINDS) + KINDS.index(kind)) * 7919 % len(SCHEMAS)]
        constraint = Constraint.from_schema(case["schema"])
        for value in case["valid"]:
            assert accepted(constraint, tokenizer, value), (case["name"], value)
        for value in case["invalid"]:
            assert not accepted(constraint, tokenizer, value), (case["name"], value)


def accepted(constraint, tokenizer, value):
    guide = new_guide(constraint, tokenizer)
    for token in tokenizer.encode(json.dumps(value, ensure_ascii=False)):
        if not guide.mask()[token]:
            return False
        guide.take(token)
    return guide.finished or bool(guide.mask()[min(tokenizer.eos_ids)])

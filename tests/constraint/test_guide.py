"""An answer under a constraint: what may come next, with every kind of tokenizer."""

import json
import re
import time

import numpy as np
import pytest
from constraint.conftest import KINDS, new_guide, random_answer
from helpers.models import LetterTokenizer
from llguidance import LLMatcher

from mistral_mlx.constraint import limits
from mistral_mlx.constraint.constraint import Constraint
from mistral_mlx.errors import OptionError

RNG = np.random.default_rng(0)
PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 8}, "age": {"type": "integer", "minimum": 0, "maximum": 99}},
    "required": ["name", "age"],
    "additionalProperties": False,
}


def begun_by(token, *, waits):
    """Return a constraint to a control token and "yes"."""
    return Constraint("calls", LLMatcher.grammar_from_lark(f"start: <[{token}]> /yes/"), begin=token, waits=waits)


@pytest.mark.parametrize("kind", KINDS)
def test_random_answers_are_what_the_constraint_says(tokenizers, kind):
    tokenizer, rng = tokenizers(kind), np.random.default_rng(0)
    for pattern in (r"(yes|no)", r" ?[a-z]+( [a-z]+){0,3}\.?", r"\{[0-9]{2,4}\}", r"  two( blanks)+", r"[à-ü]{2,5}"):
        constraint = Constraint.from_regex(pattern)
        for _ in range(15):
            ids, ended = random_answer(new_guide(constraint, tokenizer), tokenizer, rng)
            assert ended and re.fullmatch(pattern, tokenizer.decode(ids)), (pattern, tokenizer.decode(ids))
    constraint = Constraint.from_schema(PERSON)
    for _ in range(15):
        ids, ended = random_answer(new_guide(constraint, tokenizer), tokenizer, rng)
        person = json.loads(tokenizer.decode(ids))
        assert ended and list(person) == ["name", "age"] and 0 <= person["age"] <= 99 and len(person["name"]) <= 8


@pytest.mark.parametrize("kind", KINDS)
def test_the_ids_that_the_tokenizer_has_for_a_text_are_allowed(tokenizers, kind):
    tokenizer = tokenizers(kind)
    text = json.dumps({"name": "Zoë", "age": 42}, ensure_ascii=False, indent=2)
    guide = new_guide(Constraint.from_schema(PERSON), tokenizer)
    for token in tokenizer.encode(text):
        assert guide.mask()[token], tokenizer.decode([token])
        guide.take(token)
    assert guide.finished


@pytest.mark.parametrize("kind", KINDS)
def test_forced_ids_are_those_of_the_tokenizer(tokenizers, kind):
    tokenizer = tokenizers(kind)
    guide = new_guide(Constraint.from_regex("(a|b) forced text behind it"), tokenizer)
    begin = tokenizer.encode("a")
    for token in begin:
        guide.take(token)
    ids = guide.forced()
    assert [*begin, *ids] == tokenizer.encode("a forced text behind it")[: len(begin) + len(ids)]
    assert guide.fitting([*ids, *tokenizer.encode("other")]) == ids


def test_rows_without_a_token_and_control_tokens_are_never_allowed(tokenizers):
    tokenizer = tokenizers("tekken")
    mask = new_guide(Constraint.from_regex(r"(?s).*"), tokenizer).mask()
    assert not mask[tokenizer.vocab_size :].any()
    assert [i for i in tokenizer.control.values() if mask[i]] == sorted(tokenizer.eos_ids)


def test_the_answer_ends_where_it_is_whole_and_nowhere_else(tokenizers):
    tokenizer = tokenizers("byte level")
    (stop,) = tokenizer.eos_ids
    guide = new_guide(Constraint.from_regex("ab?"), tokenizer)
    assert not guide.mask()[stop]
    guide.take(*tokenizer.encode("a"))
    assert guide.mask()[stop] and not guide.finished
    guide.take(*tokenizer.encode("b"))
    assert guide.finished


def test_thoughts_are_free_and_have_to_end(tokenizers):
    tokenizer = tokenizers("tekken")
    begin, end, (stop,) = tokenizer.control["[THINK]"], tokenizer.control["[/THINK]"], tokenizer.eos_ids
    thinking = False
    guide = new_guide(Constraint.from_regex("yes"), tokenizer, think=begin, is_thinking=lambda: thinking)
    assert guide.mask()[begin]
    guide.take(begin)
    thinking = True
    for token in [*tokenizer.encode("no, or {"), end]:
        mask = guide.mask()
        assert mask[token] and not mask[stop]
        guide.take(token)
    assert guide.forced() == [] and guide.fitting([1, 2]) == [1, 2]
    thinking = False
    mask = guide.mask()
    assert not mask[begin] and not mask[stop] and mask[tokenizer.encode("yes")[0]]
    ids, _ = random_answer(guide, tokenizer, np.random.default_rng(0))
    assert tokenizer.decode(ids) == "yes"


def test_text_before_the_token_that_begins_a_constraint_is_free(tokenizers):
    tokenizer = tokenizers("tekken")
    call = tokenizer.control["[TOOL_CALLS]"]
    guide = new_guide(begun_by(call, waits=True), tokenizer)
    for token in [*tokenizer.encode("any text"), *tokenizer.eos_ids]:
        assert guide.mask() is None and guide.forced() == [] and guide.fitting([1, 2]) == [1, 2]
        guide.take(token)
    assert not guide.finished
    guide.take(call)
    assert tokenizer.decode(random_answer(guide, tokenizer, np.random.default_rng(0))[0]) == "yes"


@pytest.mark.parametrize("kind", ["v3", "tekken"])
def test_a_constraint_may_begin_with_a_control_token(kind, tokenizers):
    tokenizer = tokenizers(kind)
    call = tokenizer.control["[TOOL_CALLS]"]
    guide = new_guide(begun_by(call, waits=False), tokenizer)
    assert np.flatnonzero(guide.mask()).tolist() == [call]
    ids, _ = random_answer(guide, tokenizer, np.random.default_rng(0))
    assert ids[0] == call and tokenizer.decode(ids) == "yes" and guide.finished


@pytest.mark.parametrize("waits", [False, True])
def test_the_token_that_begins_a_constraint_ends_a_thought(waits, tokenizers):
    tokenizer = tokenizers("tekken")
    begin, call = tokenizer.control["[THINK]"], tokenizer.control["[TOOL_CALLS]"]
    thinking = False
    guide = new_guide(begun_by(call, waits=waits), tokenizer, think=begin, is_thinking=lambda: thinking)
    guide.take(begin)
    thinking = True
    guide.take(*tokenizer.encode("a"))
    assert waits or guide.mask()[call]
    guide.take(call)
    thinking = False
    ids, _ = random_answer(guide, tokenizer, np.random.default_rng(0))
    assert tokenizer.decode(ids) == "yes" and call not in ids


def test_the_text_that_an_answer_begins_with_is_a_part_of_it(tokenizers):
    tokenizer, constraint = tokenizers("v3"), Constraint.from_schema(PERSON)
    guide = new_guide(constraint, tokenizer, begun='{"name": "Bo', continues=True)
    ids, _ = random_answer(guide, tokenizer, np.random.default_rng(1))
    rest = tokenizer.detokenizer(continues=True)
    text = "".join([*map(rest.add, ids), rest.flush()])
    assert json.loads('{"name": "Bo' + text)["name"].startswith("Bo")
    with pytest.raises(OptionError, match="begins with I think, which does not fit the schema"):
        new_guide(constraint, tokenizer, begun="I think")


def test_a_text_that_the_vocabulary_cannot_spell_is_an_error():
    for pattern in ("[0-9]", "5", "5+", "(56|57)"):
        with pytest.raises(OptionError, match="cannot spell"):
            random_answer(new_guide(Constraint.from_regex(pattern), LetterTokenizer()), LetterTokenizer(), RNG)


def test_a_step_of_a_grammar_that_takes_too_long_is_given_up(tokenizers, monkeypatch):
    """llguidance has no bound on the time of a step, and cannot be stopped."""
    monkeypatch.setattr(limits, "SECONDS", 0.1)
    guide = new_guide(Constraint.from_grammar('root ::= "a" root | "b"', gbnf=True), tokenizers("tekken"))
    guide._matcher = Slow()
    with pytest.raises(OptionError, match=r"the grammar needs more than 0\.1 s for one step; give a simpler one"):
        guide.mask()
    with pytest.raises(OptionError, match="the grammar needs more than"):
        guide.take(*tokenizers("tekken").encode("a"))


class Slow:
    """Stands for a matcher that searches."""

    def unsafe_compute_mask_ptr(self, *args):
        started = time.process_time()
        while time.process_time() < started + 0.5:
            pass

    consume_tokens = unsafe_compute_mask_ptr

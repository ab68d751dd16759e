"""Answers of a model under a constraint: the same with drafts, in batches, and where it changes nothing."""

import math
import re
from dataclasses import replace

import pytest
from helpers.models import LetterTokenizer, tiny_model

from mistral_mlx import Constraint, Sampler, Session, generate, stream_generate
from mistral_mlx.errors import OptionError
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.generation.together import Together

WORDS = r"(the quick fox|the slow dog)( and the (fox|dog) )*[A-Z]{3}\."
PROMPT = [1, 7, 8, 9, 10, 11]


def answer(model, options, ids=PROMPT):
    return list(stream(Timeline(model), LetterTokenizer(), ids, options))


def text_of(responses):
    return "".join(response.text for response in responses)


@pytest.mark.parametrize("temperature", [0, 1.5])
@pytest.mark.parametrize("seed", range(4))
def test_drafts_and_forced_tokens_change_nothing(temperature, seed):
    model, _ = tiny_model(sliding_window=8, seed=seed)  # the ring wraps more than twice
    options = AnswerOptions(max_tokens=60, constraint=Constraint.from_regex(WORDS))
    alone, drafted = (
        answer(model, replace(options, sampler=Sampler(temperature=temperature, seed=seed), draft=draft))
        for draft in (0, 15)
    )
    assert [r.token for r in drafted] == [r.token for r in alone]
    assert drafted[-1].accepted_tokens > 3 and alone[-1].drafted_tokens == 0
    if alone[-1].finish_reason == "stop":
        assert re.fullmatch(WORDS, text_of(alone))


def test_answers_in_a_batch_are_those_of_each_alone():
    model, _ = tiny_model(sliding_window=8)
    each = [
        AnswerOptions(
            sampler=Sampler(temperature=1.5, seed=seed),
            max_tokens=40,
            constraint=Constraint.from_regex(pattern) if pattern else None,
        )
        for seed, pattern in enumerate((WORDS, "[a-f]{5,30}", None, "(yes|no)"))
    ]
    alone = [[r.token for r in answer(model, options)] for options in each]
    each = [replace(options, sampler=Sampler(temperature=1.5, seed=seed)) for seed, options in enumerate(each)]
    openers = [lambda o=o: stream(Timeline(model), LetterTokenizer(), PROMPT, o) for o in each]
    together = [[r.token for r in pieces] for pieces in Together(openers, 4)]
    assert together == alone


def test_a_constraint_that_allows_everything_changes_nothing():
    model, _ = tiny_model(sliding_window=8)
    no_control = dict.fromkeys((0, 1, 3, 4, 5), -math.inf)  # which are no text
    options = AnswerOptions(sampler=Sampler(temperature=0, logit_bias=no_control), max_tokens=40)
    free = answer(model, options)
    bound = answer(model, replace(options, constraint=Constraint.from_regex(r"(?s).*")))
    assert [r.token for r in bound] == [r.token for r in free]


def test_greedy_takes_the_likeliest_of_what_is_allowed():
    model, _ = tiny_model()
    tokenizer, allowed = LetterTokenizer(), "bdfh"
    ids = [
        r.token
        for r in answer(model, AnswerOptions(Sampler(temperature=0), 6, constraint=Constraint.from_regex("[bdfh]{6}")))
    ]
    timeline = Timeline(model)
    timeline.extend(PROMPT)
    for token in ids:
        assert token == max(
            (tokenizer.encode(letter)[0] for letter in allowed), key=lambda i: float(timeline.logits[i])
        )
        timeline.step(token)


def test_the_mask_comes_before_every_filter():
    model, _ = tiny_model()
    for options in ({"top_k": 1}, {"min_p": 0.9}, {"top_n_sigma": 0.5}, {"typical_p": 0.1}, {"xtc_probability": 1.0}):
        for seed in range(5):
            sampler = Sampler(temperature=1.0, seed=seed, repetition_penalty=1.5, **options)
            pieces = answer(model, AnswerOptions(sampler, 20, constraint=Constraint.from_regex("[xyz]{4,8}")))
            assert re.fullmatch("[xyz]{4,8}", text_of(pieces)), options


def test_an_answer_that_was_cut_goes_on_where_it_was():
    model, _ = tiny_model()
    session = Session(model, LetterTokenizer())
    options = AnswerOptions(
        Sampler(temperature=1.0, seed=1), 7, constraint=Constraint.from_regex("the end of a text\\.")
    )
    assert list(session.ask("a", options))[-1].finish_reason == "length"
    with pytest.raises(OptionError, match="does not fit the regular expression"):
        options.constraint.meaning(session.messages[-1]["content"])
    list(session.continue_answer(replace(options, max_tokens=40)))
    assert session.messages[-1]["content"] == "the end of a text."


def test_the_python_interface_takes_a_constraint():
    model, _ = tiny_model()
    constraint = Constraint.from_regex(" (yes|no)")
    text = generate(model, LetterTokenizer(), "a b", constraint=constraint, sampler=Sampler(temperature=0))
    assert constraint.meaning(text) == text and text in (" yes", " no")
    assert list(stream_generate(model, LetterTokenizer(), [1, 7], constraint=constraint))[-1].finish_reason == "stop"

"""What is checked before an expression or a grammar is used is bounded in time, and no fault of Rust comes through."""

import time
from contextlib import suppress
from threading import Event

import pytest

from mistral_mlx.constraint import limits
from mistral_mlx.constraint.grammar import gbnf_grammar, lark_grammar, regex_grammar
from mistral_mlx.errors import OptionError


def test_work_that_needs_too_long_is_given_up(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.1)

    enough = Event()

    def endless():
        while not enough.is_set():
            pass

    with pytest.raises(OptionError, match=r"the grammar needs more than 0\.1 s for one step"):
        limits.in_time(endless, "the grammar")
    enough.set()  # the thread was left alone


def test_waiting_does_not_count_as_time(monkeypatch):
    monkeypatch.setattr(limits, "SECONDS", 0.05)
    assert limits.in_time(lambda: time.sleep(0.3) or "done", "the grammar") == "done"


def test_a_panic_becomes_an_error():
    class PanicException(BaseException):
        """As pyo3 makes it: not an Exception."""

    def panics():
        raise PanicException("called `Option::unwrap()` on a `None` value")

    with pytest.raises(OptionError, match=r"llguidance gave up on it \(panic: called `Option"):
        limits.in_time(panics, "the grammar")


@pytest.mark.parametrize(
    ("grammar_of", "text"),
    [
        (regex_grammar, "(a?){900}a{900}"),
        (regex_grammar, "a" * 99_999),
        (regex_grammar, "|".join(f"w{i}" for i in range(15_000))),
        (regex_grammar, "(" * 49 + "a?" + ")*" * 49),
        (lark_grammar, "start: " + "x " * 2_900 + "\nx: y?\ny: /./"),
        (
            lark_grammar,
            "\n".join(f"{'start' if i == 0 else f'x{i}'}: x{i + 1} x{i + 1}" for i in range(90)) + '\nx90: "a"',
        ),
        (lark_grammar, 'start: start start start start | "a" | ""'),
        (lark_grammar, 'start: "a"{' + " " * 50_000),
        (gbnf_grammar, 'root ::= "a"{' + " " * 50_000),
        (gbnf_grammar, "root ::= " + "b " * 2_900 + "\nb ::= " + "c " * 2_900 + '\nc ::= "a" | root "b"'),
        (gbnf_grammar, "root ::= (((root{0,999}){0,999}){0,999} | [a-z]){0,999}"),
        (gbnf_grammar, "root ::= [a" + "-" * 90_000),
    ],
    ids=range(12),
)
def test_hostile_texts_cost_no_more_than_a_moment(grammar_of, text):
    started = time.process_time()
    with suppress(OptionError):
        grammar_of(text)
    assert time.process_time() - started < 2 * limits.SECONDS

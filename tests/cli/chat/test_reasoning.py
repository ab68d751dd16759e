"""Reasoning in a chat: shown apart from the answer, or not."""

from types import SimpleNamespace

import pytest
from helpers.models import LetterTokenizer, tiny_model

from mistral_mlx.cli.chat.answering import PlainWriter, show_answer
from mistral_mlx.cli.chat.history import recap
from mistral_mlx.cli.chat.remarks import Remarks
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.thoughts import Thoughts
from mistral_mlx.generation.response import GenerationResponse
from mistral_mlx.session.session import Session

PIECES = [("\n", ""), ("Hm", ""), (".\n", ""), ("\n", ""), ("So", ""), ("\n", ""), ("", "yes"), ("", "!")]


def answer(pieces):
    for reasoning, text in pieces:
        yield GenerationResponse(text, 7, None, 1, 0, 1, 0.0, 0.0, 0.0, 0.0, reasoning=reasoning)


@pytest.mark.parametrize(("hidden", "err"), [(False, "Hm.\n\nSo\n"), (True, "")])
def test_reasoning_is_apart_from_the_answer(hidden, err, capsys):
    last = show_answer(
        lambda progress: answer(PIECES),
        PlainWriter(),
        Thoughts(hidden=hidden),
        entered=0.0,
        on_start=lambda: None,
        on_progress=lambda what: None,
        on_piece=lambda piece: None,
        notes=Notes(quiet=True),
    )
    assert last.text == "!"
    assert tuple(capsys.readouterr()) == ("yes!\n", err)


def test_on_a_terminal_it_is_dim_and_a_blank_line_follows(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    thoughts = Thoughts()
    for reasoning, _ in PIECES:
        thoughts.write(reasoning)
    thoughts.end()
    thoughts.end()
    assert capsys.readouterr().err == "\x1b[2mHm\x1b[0m\x1b[2m.\x1b[0m\x1b[2m\n\nSo\x1b[0m\n\n"


def test_a_dumb_terminal_gets_no_escape_sequences(capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "dumb")
    thoughts = Thoughts()
    thoughts.write("Hm\x1b[2m")
    thoughts.end()
    assert capsys.readouterr().err == "Hm␛[2m\n"


def test_hidden_reasoning_has_a_sign_until_the_answer_begins(capsys, monkeypatch):
    """Nothing moved on the screen while a model thought for a minute."""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    thoughts = Thoughts(hidden=True, sign=True)
    for reasoning, _ in PIECES:
        thoughts.write(reasoning)
    thoughts.end()
    assert capsys.readouterr().err == "\x1b[2mthinking …\x1b[0m\r\x1b[K"
    thoughts.write("after the answer began, in whose row a sign would be")
    thoughts.end()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("is_terminal", "term", "sign"), [(False, "xterm", True), (True, "dumb", True), (True, "xterm", False)]
)
def test_hidden_reasoning_has_no_sign_in_a_pipe_or_where_nothing_is_to_be_said(
    is_terminal, term, sign, capsys, monkeypatch
):
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal)
    monkeypatch.setenv("TERM", term)
    thoughts = Thoughts(hidden=True, sign=sign)
    thoughts.write("Hm")
    thoughts.end()
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("message", "last"),
    [
        ({"content": "One.\n\n- two\n"}, "One. - two"),
        ({"content": "", "reasoning": "Okay,\nthe user"}, "(thinking) Okay, the user"),
        ({"content": "yes", "reasoning": "so"}, "yes"),
        ({"content": ""}, ""),
    ],
)
def test_a_resumed_session_shows_how_its_last_message_begins(message, last):
    """An answer that was stopped while the model thought showed nothing, and line feeds were written as codes."""
    session = SimpleNamespace(messages=[{"role": "user", "content": "a"}, {"role": "assistant", **message}])
    assert recap(session, "m", with_last=True) == f"resumed, 1 turn with m; last answer: {last}"


@pytest.mark.parametrize(
    ("text", "n", "reason", "expected"),
    [("", 1, "stop", ["the model wrote nothing"]), ("a", 2, "stop", []), ("a", 1, "stop", [])],
)
def test_an_answer_of_nothing_is_said(text, n, reason, expected):
    session = Session(*tiny_model()[:1], LetterTokenizer())
    last = GenerationResponse(text, 2, reason, 1, 0, n, 0.0, 0.0, 0.0, 0.0)
    assert list(Remarks().after(session, last, max_tokens=8)) == expected

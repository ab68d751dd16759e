"""Reasoning in a chat: shown apart from the answer, or not."""

import pytest

from mistral_mlx.cli.chat.answering import PlainWriter, show_answer
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.thoughts import Thoughts
from mistral_mlx.generation.stream import GenerationResponse

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

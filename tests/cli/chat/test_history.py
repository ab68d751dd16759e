"""A conversation is shown again: by /history, and its last turn when it is resumed."""

import json
import re
from types import SimpleNamespace

import pytest
from helpers.chat import SAID, chat, said
from helpers.cli import run
from helpers.terminal import PROMPT, leave, terminal

from mistral_mlx.cli.chat import history
from mistral_mlx.cli.terminal.notes import Notes

ANSWER = SAID.decode().strip()


@pytest.fixture
def tell(endless, home):
    """Return a function that makes the only saved session say something else, and removes its cache."""

    def change(*messages):
        chat(endless, "one\n/save mine\n", "--quiet")
        (path,) = (home / "sessions").glob("mine.json")
        keys = ("role", "content", "interrupted")
        told = [dict(zip(keys, message, strict=False)) for message in messages]
        path.write_text(json.dumps({**json.loads(path.read_text()), "messages": told, "cache": None}))

    return change


def shown(result):
    """Return what stands on stderr after the greeting."""
    return said(result)[1:]


def test_history_shows_everything_or_the_last_turns(endless, tmp_path):
    (file := tmp_path / "a.txt").write_text("first\n")
    steps = ("/history", "/system be kind", "one", f"/read {file}", "two", "/history 1", "/history", "/history 9")
    lines = shown(chat(endless, "\n".join(steps)))
    assert lines[0] == "nothing has been said yet"
    second = [f"> --- File: {file} ---", "… first", "… ", "… two", ANSWER]
    whole = ["> one", ANSWER, *second]
    at = next(i for i, line in enumerate(lines) if line.startswith("> "))
    assert lines[at:] == [*second, "system prompt: be kind", *whole, *whole]


@pytest.mark.parametrize("rest", ["x", "0", "-1"])
def test_history_takes_a_number_of_turns(endless, rest):
    assert "is no number of turns" in said(chat(endless, f"/history {rest}\n"))[-1]


def test_marks_of_interruption_and_what_was_lost_are_shown(endless, tell):
    tell(("user", "one"), ("assistant", "the", True), ("user", "two"))
    result = run("chat", "--resume", "mine", input=b"/history\n/load mine\n")
    lost = "the answer to the last message was lost; /retry asks for it again"
    recap = f"resumed, 2 turns with {endless}; last message: two; {lost}"
    assert shown(result) == [recap, "> one", "the", "interrupted", "> two", lost, recap]
    assert result.stdout == b""


def test_reasoning_is_shown_again_unless_it_is_hidden(capsys):
    messages = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "so", "reasoning": "Hm."}]
    session = SimpleNamespace(system=None, messages=messages)
    for reasoning, expected in ((True, "> a\nHm.\nso\n"), (False, "> a\nso\n")):
        history.show_history(session, Notes(), n=None, plain=False, reasoning=reasoning)
        assert capsys.readouterr().err == expected


def test_on_a_terminal_the_last_turn_is_dim_and_short_and_history_is_as_it_was(endless, tell):
    tell(
        ("user", "one"),
        ("assistant", "old"),
        ("user", "a\nb"),
        ("assistant", "\n".join(f"**n{i}**" for i in range(40))),
    )
    child = terminal(endless, "--resume", "mine")
    child.expect("resumed, 2 turns with")
    child.expect(re.escape("\x1b[2m**n39**\x1b[0m"))
    text = child.logfile_read.getvalue()
    assert "\x1b[2m> a\x1b[0m\r\n\x1b[2m… b\x1b[0m\r\n\r\n\x1b[2m**n0**" in text and "old" not in text
    assert "… 30 more lines; /history shows all" in text and "n20" not in text
    child.expect(PROMPT)
    child.send("/history\r")
    child.expect(re.escape("\x1b[1mn39\x1b[0m"))
    assert "\x1b[1mn20\x1b[0m" in child.logfile_read.getvalue()
    leave(child)


def test_a_long_paragraph_is_shortened_by_rows_and_cannot_control_the_terminal(capsys, monkeypatch):
    monkeypatch.setattr(history, "columns", lambda: 22)
    messages = [{"role": "user", "content": "\x1b[2J"}, {"role": "assistant", "content": "word " * 80}]
    history.show_last_turn(SimpleNamespace(messages=messages), Notes())
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "> ␛[2J",
        *["word word word word"] * 6,
        "… 10 more lines; /history shows all",
        *["word word word word"] * 4,
    ]

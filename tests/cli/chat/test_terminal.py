"""The chat in a real terminal: loading, the history, sessions, hostile text and colour."""

import base64
import os
import re
import signal
import stat
import time

import pytest
from helpers.chat import SIX
from helpers.cli import run
from helpers.terminal import PROMPT, asked, ended, leave, terminal


@pytest.mark.parametrize(("option", "kept"), [("--history", True), ("--no-history", False)])
def test_what_was_typed_is_remembered_for_its_owner_only(endless, home, option, kept):
    child = terminal(endless, "--max-tokens", "2", option)
    child.send("remember me\r")
    child.expect("the.*the")
    child.expect(PROMPT)  # before it, the terminal itself takes Ctrl-D
    leave(child)
    history = home / "history"
    assert history.exists() == kept
    if kept:
        assert "remember me" in history.read_text()
        assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_an_error_of_loading_is_shown_as_soon_as_it_is_known(endless, tmp_path):
    (broken := tmp_path / "broken").mkdir()
    (broken / "config.json").write_text("{")
    child = terminal(broken)
    child.expect("error: ")
    assert ended(child) == 3


def test_the_prompt_does_not_wait_for_the_model(endless, tmp_path):
    may_load = tmp_path / "may load"
    slow = f"""
import os, time, mistral_mlx.cli.chat.opening as o
opened = o.Opener.open
def open_later(*args):
    while not os.path.exists({str(may_load)!r}):
        time.sleep(0.01)
    return opened(*args)
o.Opener.open = open_later
"""
    child = terminal(endless, setup=slow)
    child.send("/stats\r")  # waits
    may_load.touch()
    child.expect("there is no answer yet")
    leave(child)


def test_the_chat_can_be_left_while_the_model_is_loading(endless):
    """Python used to end the loading thread in the middle of MLX, which aborted the process."""
    loads_for_ever = """
import mistral_mlx.cli.chat.opening as o
def open_for_ever(*args):
    import mlx.core as mx
    while True:
        mx.eval(mx.ones(100_000) + 1)
o.Opener.open = open_for_ever
"""
    child = terminal(endless, setup=loads_for_ever)
    time.sleep(1)  # until it computes
    leave(child)


def test_copy_goes_through_the_terminal_where_there_is_no_desktop(endless, monkeypatch):
    for variable in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(variable, raising=False)
    child = terminal(endless, "--max-tokens", "2")
    child.send("Hello\r")
    child.expect("stopped at 2 tokens")
    child.expect(PROMPT)
    child.send("/copy\r")
    child.expect_exact(f"\x1b]52;c;{base64.b64encode(b'the the').decode()}\x07")
    leave(child)


def test_an_answer_that_follows_a_schema_is_shown_as_it_is(endless):
    """Stars would be taken for Markdown."""
    child = terminal(endless)
    child.send('/schema {"enum": ["a *word* in stars"]}\r')
    child.expect("answers follow the schema")
    child.send("Hello\r")
    child.expect_exact('"a *word* in stars"\r\n')
    leave(child)


def test_a_killed_program_loses_at_most_the_answer(endless, home):
    child = terminal(endless, "--max-tokens", "1000000")
    child.send("Hello\r")
    child.expect("the.*the.*the")
    child.kill(signal.SIGKILL)
    child.wait()
    assert asked(home) == ["Hello"]
    again = run("chat", "-c", *SIX, "--quiet", input=b"/retry\n")
    assert again.stdout == b"the the the the the the\n"


def test_a_session_that_another_chat_has_changed_is_saved_under_a_new_name(endless, home):
    """The last of two chats to save used to win, and what was said in the other one was gone."""
    first = terminal(endless, "--max-tokens", "2")

    def say(text, remark):
        first.send(f"{text}\r")
        first.expect(remark)
        first.expect("35;1m> ")  # the next prompt

    say("one", "stopped at")
    say("/save shared", "saved as shared")
    run("chat", "--resume", "shared", "--quiet", "--max-tokens", "2", input=b"two\n")
    say("three", "changed the session shared; this conversation is saved as shared-2")
    say("four", "stopped at")
    leave(first)
    assert first.logfile_read.getvalue().count("this conversation is saved as") == 1
    assert asked(home, "shared") == ["one", "two"]
    assert asked(home, "shared-2") == ["one", "three", "four"]
    assert not list((home / "sessions").glob("shared-3*"))


def test_an_error_of_saving_is_said_once_until_a_save_works_and_at_the_end(endless, home):
    """It used to be said twice a turn."""
    (home / "sessions").touch()
    child = terminal(endless, "--max-tokens", "2", "--stats")
    for _ in range(2):
        child.send("one\r")
        child.expect("first token after")
    assert child.logfile_read.getvalue().count("cannot be made (File exists)") == 1
    (home / "sessions").unlink()
    child.send("two\r")
    child.expect("first token after")
    child.expect(PROMPT)
    child.send("/save\r")
    child.expect("saved as")
    (home / "sessions").rename(home / "away")
    (home / "sessions").touch()
    child.send("three\r")
    child.expect("cannot be made")
    child.expect("first token after")
    child.send("\x04")
    child.expect("the end of this conversation is not saved")
    assert ended(child) == 0


def test_a_second_turn_and_a_resize_while_it_is_written(endless):
    child = terminal(endless, "--max-tokens", "1000000")
    for columns in (100, 40):
        child.send("Hello\r")
        child.expect("the.*the.*the.*the.*the")
        child.setwinsize(10, columns)  # the kernel sends SIGWINCH
        child.expect("the.*the.*the.*the.*the")
        child.kill(signal.SIGINT)
        child.expect("interrupted; the part above stays")
        child.expect(PROMPT)
    leave(child)
    assert "error" not in child.logfile_read.getvalue()


HOSTILE = "\x1b]52;c;cm0=\x07\x1b[31m\x9b2J\u202e"
WRITES_HOSTILE_TEXT = f"""
import dataclasses, mistral_mlx.session.session as s
stream = s.stream
s.stream = lambda *a, **k: (dataclasses.replace(r, text={HOSTILE!r} + " end ") for r in stream(*a, **k))
"""


@pytest.mark.parametrize("option", ["--stats", "--plain"])
def test_nothing_that_is_pasted_or_answered_controls_the_terminal(endless, option):
    """Through the whole process: what is typed, what is answered, the recap, and messages that show a value."""
    child = terminal(endless, "--max-tokens", "2", option, setup=WRITES_HOSTILE_TEXT)
    child.send(f"\x1b[200~{HOSTILE[:-1]}\x1b[201~\r")
    child.expect("end")
    child.expect("stopped at 2 tokens")
    child.expect(PROMPT)
    child.send(f"\x1b[200~/load {HOSTILE[:-1]}\x1b[201~\r")
    child.expect("cannot be a session's name")
    leave(child)
    written = child.logfile_read.getvalue()
    assert not re.search("\x1b]|\x1b\\[31m|\x9b|\u202e", written)
    assert "␛" in written


def test_bytes_that_are_no_text_are_typed_and_saved_all_the_same(endless, home):
    child = terminal(endless, "--max-tokens", "2")
    os.write(child.child_fd, b"a \xff b\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert asked(home) == ["a \ufffd b"]


def test_a_history_that_cannot_be_kept_does_not_keep_from_chatting(endless, home):
    (home / "history").mkdir(parents=True)
    child = terminal(endless, "--max-tokens", "2", before="what is typed is not remembered")
    child.send("Hello\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert "Traceback" not in child.logfile_read.getvalue()


@pytest.mark.parametrize("variables", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_dumb_terminal_gets_no_sequences_and_no_color_none_of_colour(endless, variables):
    child = terminal(endless, "--max-tokens", "2", **variables)
    child.send("Hello\n" if variables["TERM"] == "dumb" else "Hello\r")
    child.expect("the.*the")
    child.expect("stopped at 2 tokens")
    leave(child)
    written = child.logfile_read.getvalue()
    assert ("\x1b" in written) == (variables["TERM"] == "xterm")
    assert not re.search(r"\x1b\[[\d;]*[349]\d[;m]", written)

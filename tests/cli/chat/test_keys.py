"""Keys in a real terminal: Ctrl-C, new lines, pastes, the editor and edit mode."""

import signal

import pytest
from helpers.terminal import PROMPT, asked, ended, leave, terminal

from mistral_mlx.cli.chat import loop
from mistral_mlx.cli.chat.background import Background
from mistral_mlx.cli.chat.chat import Chat
from mistral_mlx.cli.chat.opening import ChatSetup, Opener, open_session
from mistral_mlx.cli.chat.settings import ChatOptions
from mistral_mlx.cli.chat.store import Store
from mistral_mlx.cli.terminal.notes import Notes

SLOWLY = """
import time
from mistral_mlx import kernels
slowly = lambda function: lambda *args, **options: time.sleep(0.9) or function(*args, **options)
kernels.run_block, kernels.swiglu = slowly(kernels.run_block), slowly(kernels.swiglu)
"""


def test_ctrl_c_stops_the_answer_and_not_the_program(endless):
    child = terminal(endless, "--max-tokens", "1000000")
    child.send("Hello\r")
    child.expect("the.*the.*the.*the.*the")
    child.kill(signal.SIGINT)
    child.expect("interrupted; the part above stays")
    child.expect(PROMPT)
    child.send("/clear\r")
    child.expect("the conversation is cleared")
    leave(child)


def test_ctrl_c_while_the_prompt_is_read_is_heard_at_once(endless):
    """A step of 512 tokens used to be finished first."""
    child = terminal(endless, setup=SLOWLY)
    child.send("Hello " * 60 + "\r")  # more tokens than pass the model as one operation
    child.expect(r"reading the prompt: \d+ of")
    child.kill(signal.SIGINT)
    child.expect("interrupted before the answer began", timeout=2)
    child.expect("> .*Hello")  # it stands in the prompt again
    child.send("\x03")
    leave(child)


def test_ctrl_c_clears_a_line_and_twice_on_an_empty_one_leaves(endless):
    child = terminal(endless)
    child.send("half a line\x03\x03")
    child.expect("Ctrl-C again")
    child.expect(PROMPT)
    child.send("\x03")
    assert ended(child) == 0


def test_a_paste_of_several_lines_is_one_message(endless):
    child = terminal(endless, "--max-tokens", "2")
    child.send("\x1b[200~first line\nsecond line\x1b[201~\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert child.logfile_read.getvalue().count("stopped at") == 1


def test_enter_takes_what_ctrl_r_has_found_and_ctrl_c_ends_the_search_only(endless, home):
    """Enter used to empty the search, and two Ctrl-C in it ended the chat."""
    child = terminal(endless, "--max-tokens", "2")
    for text in ("reverse a string", "something else"):
        child.send(f"{text}\r")
        child.expect("stopped at 2 tokens")
        child.expect(PROMPT)
    for keys in ("\x12nothing\x03", "\x12\x03"):
        child.send(keys)
    child.send("\x12rever")
    child.expect("I-search backward.*rever")
    child.send("\r\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert asked(home) == ["reverse a string", "something else", "reverse a string"]


def test_a_backslash_three_quotes_and_alt_enter_begin_new_lines(endless, home):
    child = terminal(endless, "--max-tokens", "2")
    for keys in ("one\\\rtwo\r", '"""\rthree\rfour"""\r', "five\x1b\rsix\r"):
        child.send(keys)
        child.expect("stopped at 2 tokens")
        child.expect(PROMPT)
    leave(child)
    assert asked(home) == ["one\ntwo", "three\nfour", "five\nsix"]


@pytest.fixture
def editor(tmp_path, monkeypatch):
    """Return what makes a shell script the user's editor; it gets the file as $1."""

    def use(script):
        (file := tmp_path / "edit").write_text(f"#!/bin/sh\n{script}\n")
        file.chmod(0o755)
        monkeypatch.setenv("VISUAL", str(file))

    return use


def test_a_message_is_written_in_the_editor(endless, home, editor):
    editor('echo "from the editor" > "$1"')
    child = terminal(endless, "--max-tokens", "2")
    child.send("/editor\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert asked(home) == ["from the editor"]


@pytest.mark.parametrize(
    ("script", "sent"),
    [
        ("true", []),  # left without saving
        ('printf "" > "$1"', []),
        ('echo more >> "$1"', ["begunmore"]),
        ('touch "$1"', ["begun"]),  # saved as it was
        ("exit 3", []),
        ('rm "$1"', []),
    ],
)
def test_a_message_that_was_not_saved_in_the_editor_is_not_sent(endless, home, editor, script, sent):
    editor(script)
    child = terminal(endless, "--max-tokens", "2")
    child.send("/editor begun\r")
    child.expect("stopped at 2" if sent else "nothing was saved in the editor|status 3; nothing is sent")
    leave(child)
    assert (asked(home) if sent else list((home / "sessions").glob("*.json"))) == sent


def test_what_a_failing_editor_saved_stands_in_the_prompt(endless, home, editor):
    editor('printf "an hour of writing" > "$1"; stty raw; exit 1')
    child = terminal(endless, "--max-tokens", "2")
    child.send("/editor\r")
    child.expect("status 1; what it saved is kept[^\n]*\r\n")
    child.expect("> .*an hour of writing")
    child.send("\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert asked(home) == ["an hour of writing"]


def test_a_long_text_of_the_editor_that_gets_no_answer_is_in_the_history(endless, editor):
    """The screen said that Up brings it back, and it was gone."""
    editor('seq -f "line %g" 60 > "$1"; exit 1')
    child = terminal(endless, "--max-tokens", "2")
    child.send("/editor\r")
    child.expect("what it saved is kept")
    child.expect("Up brings it back")
    child.send("\x1b[A")
    child.expect("line 60")
    child.send("\x03")
    leave(child)


def test_what_was_saved_in_an_editor_outlives_the_window(endless, home, editor):
    editor('echo "saved text" > "$1"; echo editing; sleep 60')
    child = terminal(endless)
    child.send("/editor\r")
    child.expect("editing")
    child.kill(signal.SIGHUP)
    child.wait()
    assert "saved text" in (home / "history").read_text()


def test_edit_puts_the_message_into_the_prompt(endless, home):
    child = terminal(endless, "--max-tokens", "2")
    for keys, remark in (("one\r", "stopped at 2 tokens"), ("/edit\r", "the next message replaces it")):
        child.send(keys)
        child.expect(remark)
    child.expect("edit 1> .*one")
    child.send("more\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert asked(home) == ["onemore"]


def test_one_ctrl_c_leaves_edit_mode_and_the_next_message_is_a_new_one(endless, home):
    """The first Ctrl-C used to empty the line only: the next message replaced message N, and all after it was gone."""
    child = terminal(endless, "--max-tokens", "2")
    for keys, remark in (("one\r", "stopped at"), ("two\r", "stopped at"), ("/edit 2\r", "the next message replaces")):
        child.send(keys)
        child.expect(remark)
    child.expect("edit 2> .*one")
    child.send("\x03")
    child.expect("nothing is changed")
    child.expect(PROMPT)
    child.send("three\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert asked(home) == ["one", "two", "three"]


class Typed:
    """A reader of lines that are typed already; None is Ctrl-C."""

    is_interactive = True

    def __init__(self, *lines):
        self.lines, self.modes = list(lines), []

    def read(self, default="", *, mode=""):
        self.modes.append((mode, default))
        if not self.lines:
            raise EOFError
        line = self.lines.pop(0)
        if line is None:
            raise KeyboardInterrupt
        return line


def test_ctrl_c_in_edit_mode_does_not_count_as_the_first_of_two(endless, home):
    reader = Typed("one", "two", "/edit 2", None, "three", "/edit", "/undo", "four", None, "five")
    opener = Opener(str(endless), "auto", 0, exact=False, ignore_memory=False, notes=Notes(quiet=True))
    setup = ChatSetup(opener, Store(home / "sessions"), ChatOptions(max_tokens=2, temperature=0.0))
    chat = Chat(setup, Background(lambda: open_session(setup)), setup.settings)
    assert loop.run(chat, reader) is None
    assert asked(home) == ["one", "two", "four", "five"]
    assert [mode for mode in reader.modes if mode[0]] == [("edit 2", "one"), ("edit 1", "three")]

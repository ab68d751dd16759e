"""The chat: whole transcripts from a pipe, and a real terminal for its own features."""

import base64
import io
import json
import os
import re
import signal
import stat

import pexpect
import pytest
from helpers.chat import SIX, chat, said
from helpers.cli import PROGRAM, one_line, run
from helpers.tiny_folder import repeat_forever, write_tiny_folder

from mistral_mlx.cli.chat import loop
from mistral_mlx.cli.chat.background import Background
from mistral_mlx.cli.chat.chat import Chat
from mistral_mlx.cli.chat.loop import COMMANDS
from mistral_mlx.cli.chat.opening import ChatSetup, Opener, open_session
from mistral_mlx.cli.chat.settings import ChatOptions
from mistral_mlx.cli.chat.store import Store
from mistral_mlx.cli.terminal.notes import Notes

PROMPT = ">"


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    return repeat_forever(write_tiny_folder(tmp_path_factory.mktemp("models") / "endless", max_position_embeddings=64))


def test_one_message_a_line_and_nothing_but_answers_on_stdout(endless):
    result = chat(endless, "Hello\n\nAgain\n", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"the the the the the the\n" * 2, b"")


def test_the_cache_is_kept_between_turns(endless):
    first, second = [line for line in said(chat(endless, "Hello\nAgain\n", "--stats")) if line.startswith("prompt")]
    n_prompt, n_cached = map(int, re.match(r"prompt (\d+) tokens \((\d+) cached\)", first).groups())
    assert (n_cached, f"({n_prompt + 5} cached)" in second) == (0, True)


def test_commands_are_obeyed_and_unknown_ones_are_not_sent(endless):
    result = chat(endless, "/nope\n/help\n/exit\nnever\n")
    assert result.returncode == 2  # a script has to know
    assert result.stdout == b""
    lines = said(result)
    assert "error: there is no command /nope" in lines[1]
    assert {line.split()[0] for line in lines[2:-2]} == {f"/{name}" for name in COMMANDS}


def test_clear_forgets(endless):
    result = chat(endless, "Hello\n/clear\nHello\n", "--stats")
    counts = [line.split(" tok/s")[0] for line in said(result) if line.startswith("prompt")]
    assert [count.rsplit(" ", 1)[0] for count in counts] == [counts[0].rsplit(" ", 1)[0]] * 2
    assert "the conversation is cleared" in said(result)


def test_an_unfinished_quotation_is_a_message(endless):
    assert chat(endless, '"""\nHello', "--quiet").stdout == b"the the the the the the\n"


def test_three_quotes_make_one_message_of_many_lines(endless):
    many = chat(endless, '"""\nHello\nAgain"""\n', "--quiet")
    assert many.stdout.count(b"\n") == 1


def test_the_window_and_the_trained_positions_are_said_once(endless):
    lines = said(chat(endless, "Hello\n" * 9))
    assert len([line for line in lines if "longer than the window of 8 tokens" in line]) == 1
    assert len([line for line in lines if "past the 64 that the model was trained for" in line]) == 1


def test_a_full_context_is_an_error_of_the_turn_and_not_of_the_chat(tmp_path):
    short = write_tiny_folder(tmp_path / "short", sliding_window=None, max_position_embeddings=40)
    result = chat(repeat_forever(short), f"Hello\n{'x ' * 40}\nHello\n", "--quiet")
    assert (result.returncode, result.stdout) == (4, b"the the the the the the\n" * 2)
    assert "the model's context 40" in one_line(result.stderr)


SLOWLY = """
import time
from mistral_mlx import kernels
slowly = lambda function: lambda *args: time.sleep(0.3) or function(*args)
kernels.products, kernels.swiglu = slowly(kernels.products), slowly(kernels.swiglu)
"""


def terminal(model, *args, setup="", before="", **variables):
    """Start a chat in a terminal of 24 lines."""
    command = ["chat", "-m", str(model), "--temperature", "0", *args]
    # Nobody answers where the cursor is.
    env = {**os.environ, "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", **variables}
    child = pexpect.spawn(PROGRAM[0], ["-c", setup + PROGRAM[2], *command], encoding="utf-8", timeout=10, env=env)
    child.setwinsize(24, 100)
    child.logfile_read = io.StringIO()
    child.expect(before)
    child.expect("chatting with")
    child.expect(PROMPT)
    return child


def test_ctrl_c_stops_the_answer_and_not_the_program(endless):
    child = terminal(endless, "--max-tokens", "1000000")
    child.send("Hello\r")
    child.expect("the the the the the")
    child.kill(signal.SIGINT)
    child.expect("interrupted; the part above stays")
    child.expect(PROMPT)
    child.send("/clear\r")
    child.expect("the conversation is cleared")
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def test_ctrl_c_while_the_prompt_is_read_is_heard_at_once(endless):
    """A step of 512 tokens used to be finished first."""
    child = terminal(endless, setup=SLOWLY)
    child.send("Hello\r")
    child.expect(r"reading the prompt: \d+ of")
    child.kill(signal.SIGINT)
    child.expect("interrupted before the answer began", timeout=2)
    child.expect(PROMPT)
    child.send("\x04")
    child.expect(pexpect.EOF)


def test_ctrl_c_clears_a_line_and_twice_on_an_empty_one_leaves(endless):
    child = terminal(endless)
    child.send("half a line\x03\x03")
    child.expect("Ctrl-C again")
    child.expect(PROMPT)
    child.send("\x03")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


@pytest.mark.parametrize(("option", "kept"), [("--history", True), ("--no-history", False)])
def test_what_was_typed_is_remembered_for_its_owner_only(endless, home, option, kept):
    child = terminal(endless, "--max-tokens", "2", option)
    child.send("remember me\r")
    child.expect("the the")
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    history = home / "history"
    assert history.exists() == kept
    if kept:
        assert "remember me" in history.read_text()
        assert stat.S_IMODE(history.stat().st_mode) == 0o600


def test_a_paste_of_several_lines_is_one_message(endless):
    child = terminal(endless, "--max-tokens", "2")
    child.send("\x1b[200~first line\nsecond line\x1b[201~\r")
    child.expect("the the\r\n")
    child.expect(PROMPT)
    child.send("\x04")
    child.expect(pexpect.EOF)
    assert "the the" not in child.before


def leave(child):
    child.send("\x04")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 0


def asked(home, name="*"):
    (path,) = (home / "sessions").glob(f"{name}.json")
    return [m["content"] for m in json.loads(path.read_text())["messages"] if m["role"] == "user"]


def test_a_backslash_three_quotes_and_alt_enter_begin_new_lines(endless, home):
    child = terminal(endless, "--max-tokens", "2")
    for keys in ("one\\\rtwo\r", '"""\rthree\rfour"""\r', "five\x1b\rsix\r"):
        child.send(keys)
        child.expect("stopped at 2 tokens")
        child.expect(PROMPT)
    leave(child)
    assert asked(home) == ["one\ntwo", "three\nfour", "five\nsix"]


def test_an_error_of_loading_is_shown_as_soon_as_it_is_known(endless, tmp_path):
    (broken := tmp_path / "broken").mkdir()
    (broken / "config.json").write_text("{")
    child = terminal(broken)
    child.expect("error: ")
    child.expect(pexpect.EOF)
    child.close()
    assert child.exitstatus == 3


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


def test_a_message_is_written_in_the_editor(endless, home, tmp_path, monkeypatch):
    (editor := tmp_path / "edit").write_text('#!/bin/sh\necho "from the editor" > "$1"\n')
    editor.chmod(0o755)
    monkeypatch.setenv("VISUAL", str(editor))
    child = terminal(endless, "--max-tokens", "2")
    child.send("/editor\r")
    child.expect("stopped at 2 tokens")
    leave(child)
    assert asked(home) == ["from the editor"]


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
    opener = Opener(str(endless), "auto", 0, ignore_memory=False, notes=Notes(quiet=True))
    setup = ChatSetup(opener, Store(home / "sessions"), ChatOptions(max_tokens=2, temperature=0.0))
    chat = Chat(setup, Background(lambda: open_session(setup)), setup.settings)
    assert loop.run(chat, reader) is None
    assert asked(home) == ["one", "two", "four", "five"]
    assert [mode for mode in reader.modes if mode[0]] == [("edit 2", "one"), ("edit 1", "three")]


def test_a_killed_program_loses_at_most_the_answer(endless, home):
    child = terminal(endless, "--max-tokens", "1000000")
    child.send("Hello\r")
    child.expect("the the the")
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

    say("one", "stopped at")
    say("/save shared", "saved as shared")
    run("chat", "--resume", "shared", "--quiet", "--max-tokens", "2", input=b"two\n")
    say("three", "changed the session shared; this conversation is saved as shared-2")
    first.expect("stopped at")
    say("four", "stopped at")
    leave(first)
    assert first.logfile_read.getvalue().count("this conversation is saved as") == 1
    assert asked(home, "shared") == ["one", "two"]
    assert asked(home, "shared-2") == ["one", "three", "four"]
    assert not list((home / "sessions").glob("shared-3*"))


def test_a_second_turn_and_a_resize_while_it_is_written(endless):
    child = terminal(endless, "--max-tokens", "1000000")
    for columns in (100, 40):
        child.send("Hello\r")
        child.expect("the the the the the")
        child.setwinsize(10, columns)  # the kernel sends SIGWINCH
        child.expect("the the the the the")
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
    child.expect("the the")
    child.expect("stopped at 2 tokens")
    leave(child)
    written = child.logfile_read.getvalue()
    assert ("\x1b" in written) == (variables["TERM"] == "xterm")
    assert not re.search(r"\x1b\[[\d;]*[349]\d[;m]", written)

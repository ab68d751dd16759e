"""Keys that are typed while an answer is written: not shown in it, kept for the next prompt, never sent unasked."""

import os
import signal
import termios
import time

import pytest
from helpers.seen import SLOWLY, Seen
from helpers.terminal import asked

ECHO, CANONICAL = termios.ECHO, termios.ICANON
ANSWERING = "(window) · Ctrl-C stops"  # not yet while the prompt is read


def chat(model, *args, setup=SLOWLY, **options):
    args = ["chat", "-m", model, "--temperature", "0", "--max-tokens", "1000000", *args]
    seen = Seen(*args, setup=setup, **options)
    seen.until(["chatting with", ">", "greedy"])  # the toolbar tells that the model is loaded
    return seen


def answering(model, *args, **options):
    """Return a chat whose model writes " the" without an end."""
    seen = chat(model, *args, **options)
    seen.type("Hello\r")
    seen.until("the the the the the")
    return seen


def stop(seen, line=ANSWERING):
    """Stop the answer, below which `line` is shown."""
    seen.until(line)
    seen.child.sendintr()
    seen.until_gone(line)
    seen.until("greedy")  # the line below the prompt


def modes(seen):
    return termios.tcgetattr(seen.child.child_fd)[3]


def is_whole(rows):
    """Whether rows hold nothing but the answer."""
    return all(row.replace("the", "").strip() == "" for row in rows)


def answer_rows(seen):
    rows = [*seen.scrolled, *seen.rows]
    begin = max(i for i, row in enumerate(rows) if row.startswith("> Hello"))
    end = next(i for i, row in enumerate(rows) if "interrupted; the part" in row)
    return [row for row in rows[begin + 1 : end] if row]


def test_what_is_typed_during_an_answer_is_not_in_it_but_in_the_next_prompt(endless, home):
    seen = answering(endless)
    for keys in ("thanks for", "\x1b[A", "\x1b[D", " that", "\x7f\x7f\x7f\x7fthis", "\t"):
        seen.type(keys)
        seen.read(0.05)
    seen.until("next: thanks for this")
    stop(seen, "next:")
    seen.until("> thanks for this")
    assert is_whole(answer_rows(seen))
    assert asked(home) == ["Hello"]
    seen.type(", friend\r")
    seen.until("> thanks for this, friend")
    stop(seen)
    seen.leave()
    assert asked(home) == ["Hello", "thanks for this, friend"]


def test_enter_during_an_answer_sends_nothing(endless, home):
    seen = answering(endless)
    seen.type("first\rsecond\r")
    seen.until("next:")
    stop(seen, "next:")
    seen.until(["> first", "second"])
    assert is_whole(answer_rows(seen))
    seen.clear()  # empties the prompt
    seen.until_gone("> first")
    seen.leave()
    assert asked(home) == ["Hello"]


def test_a_text_that_is_pasted_during_an_answer_is_one_message(endless, home):
    seen = answering(endless)
    seen.type("\x1b[200~Fix this:\rfor i in range(3):\r    print(i)\r\x1b[201~")
    seen.until("next:")
    stop(seen, "next:")
    seen.until(["> Fix this:", "for i in range(3):", "print(i)"])
    seen.type("\r")
    seen.until("the the the")
    stop(seen)
    seen.leave()
    assert asked(home) == ["Hello", "Fix this:\nfor i in range(3):\n    print(i)"]


def test_a_long_paste_whose_end_comes_after_the_answer_is_whole(endless, home):
    """The terminal answers the prompt where the cursor is, which used to get into the pasted text."""
    seen = answering(endless)
    text = "\r".join(f"line {i} é" for i in range(2000))
    pieces = [text[i : i + 1000] for i in range(0, len(text), 1000)]
    seen.type("\x1b[200~")
    for n, piece in enumerate(pieces):
        seen.type(piece)
        seen.read()
        if n == len(pieces) // 2:
            seen.child.sendintr()
    seen.type("\x1b[201~")
    seen.until("line 1999 é")
    seen.type("\r")
    seen.until("the the the")
    stop(seen)
    seen.leave()
    assert asked(home)[1:] == [text.replace("\r", "\n")]


def test_ctrl_c_leaves_no_sign_in_the_text_and_keeps_what_was_typed(endless):
    seen = answering(endless)
    seen.type("next one")
    seen.until("next: next one")
    stop(seen, "next:")
    seen.until("> next one")
    assert "^C" not in "\n".join([*seen.scrolled, *seen.rows])
    seen.clear()
    seen.until_gone("> next one")
    seen.leave()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_leaves_the_terminal_as_it_was(endless, number):
    seen = answering(endless)
    assert not modes(seen) & ECHO
    seen.child.kill(number)
    seen.until_end()
    assert modes(seen) & ECHO
    assert modes(seen) & CANONICAL
    assert seen.written.rindex(b"\x1b[?2004l") > seen.written.rindex(b"\x1b[?2004h")


def test_ctrl_z_gives_the_terminal_back_and_fg_goes_on(endless):
    seen = answering(endless, shell="{}; echo; stty -a; read -t 1; fg")
    seen.child.send("\x1a")
    seen.until("Stopped")
    seen.until(" echo")
    assert seen.written.rindex(b"\x1b[?2004l") > seen.written.rindex(b"\x1b[?2004h")
    seen.until("Ctrl-C stops")
    seen.type("hello again")
    seen.until("next: hello again")
    stop(seen, "next:")
    seen.clear()
    seen.until_gone("hello again")
    seen.leave()


def test_a_crash_leaves_the_terminal_as_it_was(endless):
    crash = """
import mistral_mlx.session.session as s
stream = s.stream
def crash(*args, **options):
    for i, response in enumerate(stream(*args, **options)):
        if i == 20:
            raise ZeroDivisionError
        yield response
s.stream = crash
"""
    seen = answering(endless, setup=crash)
    seen.until_end()
    assert modes(seen) & ECHO
    seen.until("this is a bug")


def test_the_line_at_the_bottom_stays_while_an_answer_is_written(endless):
    seen = answering(endless, rows=10)
    for _ in range(20):
        seen.read(0.05)
        assert sum("Ctrl-C stops" in row for row in seen.rows) == 1
        assert "Ctrl-C stops" not in "\n".join(seen.scrolled)
    stop(seen)
    seen.leave()
    assert "Ctrl-C stops" not in "\n".join([*seen.scrolled, *seen.rows])


def test_plain_answers_have_no_line_below_them(endless):
    seen = answering(endless, "--plain")
    seen.type("typed")
    seen.read(0.2)
    seen.child.sendintr()
    seen.until("> typed")
    assert b"Ctrl-C stops" not in seen.written.partition(b"Hello")[2]
    seen.clear()
    seen.until_gone("> typed")
    seen.leave()


def test_a_completion_shows_no_keys_and_leaves_them_to_the_shell(endless):
    seen = Seen("complete", "-m", endless, "--temperature", "0", "--max-tokens", "1000000", "Hello")
    seen.until("the the the")
    seen.type("ls\r")
    seen.read(0.3)
    assert "ls" not in seen.text
    seen.child.sendintr()
    seen.until_end()
    assert "^C" not in seen.text
    assert modes(seen) & ECHO


THINKS = """
import dataclasses, itertools, time, mistral_mlx.session.session as s
stream = s.stream
def thinking(*args, **options):
    for n, response in enumerate(stream(*args, **options)):
        time.sleep(0.005)
        yield dataclasses.replace(response, text="", reasoning=f" thought{n}") if n < 60 else response
s.stream = thinking
"""


def test_reasoning_is_broken_between_words_and_has_the_line_below_it(endless):
    seen = chat(endless, setup=THINKS)
    seen.type("Hello\r")
    seen.until("thought20")
    assert "Ctrl-C stops" in seen.text
    seen.until("the the the")
    stop(seen)
    thoughts = " ".join(row for row in [*seen.scrolled, *seen.rows] if "thought" in row)
    assert thoughts.split() == [f"thought{n}" for n in range(60)]
    seen.leave()


def test_hidden_reasoning_has_the_line_below_its_sign(endless):
    seen = chat(endless, "--reasoning", "hide", setup=THINKS)
    seen.type("Hello\r")
    seen.until(["thinking …", "Ctrl-C stops"])
    seen.until("the the the")
    assert "thinking" not in seen.text
    stop(seen)
    seen.leave()


def test_a_message_that_gets_no_answer_stands_in_the_prompt_again(endless, home):
    """It used to be gone from the screen's last row, and one had to look for it in the history."""
    slowly = """
import time
from mistral_mlx import kernels
slowly = lambda function: lambda *args, **options: time.sleep(0.9) or function(*args, **options)
kernels.run_block, kernels.swiglu = slowly(kernels.run_block), slowly(kernels.swiglu)
"""
    seen = chat(endless, setup=slowly)
    seen.type("a question of some length\r")
    seen.until("reading the prompt: 0 of")
    seen.child.sendintr()
    seen.until("interrupted before the answer began")
    seen.until_true(lambda: seen.rows[seen.screen.cursor.y] == "> a question of some length")
    seen.clear()
    seen.until("\n>\n")
    seen.leave()
    assert asked(home) == []


def test_plain_remarks_are_like_those_of_other_commands_and_there_is_no_bar(endless):
    seen = chat(endless, "--plain")
    seen.type("/set top_k 3\r")
    seen.until("mistral-mlx: top_k 3")
    seen.type("/plain\r")
    seen.until("· answers are shown as Markdown")
    seen.leave()


def test_a_ctrl_c_that_comes_a_moment_after_the_answer_takes_nothing_that_was_typed(endless):
    seen = answering(endless, setup=SLOWLY + "import mistral_mlx.cli.chat.input as i; i.LATE_S = 2.0\n")
    seen.type("precious")
    seen.until("next: precious")
    stop(seen, "next:")
    seen.until("> precious")
    seen.type("\x03")
    seen.read(2.2)
    assert "> precious" in seen.text
    seen.type("\x03")
    seen.until_gone("> precious")
    seen.type("\x1b[A")  # what Ctrl-C empties is in the history
    seen.until("> precious")
    seen.type("\x03")
    seen.leave()


def test_what_is_typed_while_the_prompt_is_read_is_shown_and_kept_apart_from_the_message(endless):
    slowly = """
import time
from mistral_mlx import kernels
slowly = lambda function: lambda *args, **options: time.sleep(0.5) or function(*args, **options)
kernels.run_block, kernels.swiglu = slowly(kernels.run_block), slowly(kernels.swiglu)
"""
    seen = chat(endless, setup=slowly)
    seen.type("Hello " * 60 + "\r")
    seen.until(["reading the prompt: ", "Ctrl-C stops"])
    seen.type("typed ahead")
    seen.until("next: typed ahead")
    seen.child.sendintr()
    seen.until(["interrupted before the answer began", "… typed ahead"])
    seen.clear()
    seen.leave()


@pytest.mark.parametrize("begun", [False, True])
def test_a_window_that_is_closed_ends_the_program_and_keeps_the_conversation(endless, home, begun):
    """At the prompt, the terminal that was gone was read again and again."""
    seen = answering(endless) if begun else chat(endless)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, seen.child.child_fd)
    end = time.monotonic() + 20
    while seen.child.isalive():
        assert time.monotonic() < end, "the program goes on"
        time.sleep(0.05)
    assert asked(home) == ["Hello"] if begun else not list(home.glob("sessions/*.json"))

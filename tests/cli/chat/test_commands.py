"""The slash commands: whole transcripts from a pipe."""

import os
import re

import pytest
from helpers.chat import SAID, SIX, chat, said, spoken
from helpers.cli import run
from helpers.tiny_folder import repeat_forever, write_tiny_folder

from mistral_mlx.cli.chat import attachments


def test_undo_retry_edit_and_continue_change_the_transcript(endless, home):
    steps = (
        "one",
        "two",
        "/undo",
        "/retry",
        "/edit 1",
        "uno",
        "/continue",
        "three",
        "/undo 2",
        "four",
        "/edit",
        "five",
    )
    result = chat(endless, "\n".join(steps), "--quiet")
    answer = SAID.decode().strip()
    assert (result.returncode, result.stderr) == (0, b"")
    assert spoken(home) == ["five", answer]
    assert result.stdout.count(b"\n") == 8  # one two retry uno continue three four five


def test_continue_makes_one_answer_of_two_parts(endless, home):
    chat(endless, "one\n/continue\n")
    assert spoken(home) == ["one", " ".join(["the"] * 12)]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nope", "there is no command /nope"),
        ("/undo", "there is no turn yet"),
        ("/undo x", "'x' is no number"),
        ("/edit", "there is no message yet"),
        ("/retry", "there is no turn yet"),
        ("/continue", "there is no answer to go on with"),
        ("/set nope 1", "there is no setting nope"),
        ("/set top_p 7", "top_p"),
        ("/set max-tokens x", "whole number"),
        ("/load", "which session"),
        ("/load nope", "there is no session nope"),
        ("/load ../x", "cannot be a session's name"),
        ("/save a/b", "cannot be a session's name"),
        ("/read", "which file"),
        ("/read nope.txt", "there is no file nope.txt"),
        ("/read .", "not a file"),
        ('/read "', "cannot be split"),
        ("/glob", "which files"),
        ("/glob nope*", "no file matches"),
        ("/editor", "needs a terminal"),
        ("/copy", "there is no answer yet"),
        ("/export", "to which file"),
        ("/tokens", "which text"),
        ("/stats", "there is no answer yet"),
        ("/model nope", "no such model"),
    ],
)
def test_a_wrong_command_is_told_so(errors, command, reason):
    assert reason.replace("'", "") in errors[command].replace("'", "")


@pytest.fixture(scope="module")
def errors(endless, tmp_path_factory):
    """What each wrong command says; one run for all, as none of them changes anything."""
    wrong = next(mark.args[1] for mark in test_a_wrong_command_is_told_so.pytestmark)
    home = tmp_path_factory.mktemp("home")
    env = {**os.environ, "MISTRAL_MLX_HOME": str(home)}
    result = run(
        "chat", "-m", endless, *SIX, "--quiet", input="\n".join(c for c, _ in wrong).encode(), env=env, cwd=home
    )
    lines = result.stderr.decode().splitlines()
    assert (result.returncode in (2, 3), result.stdout, len(lines)) == (True, b"", len(wrong)), lines
    assert not (home / "sessions").exists()
    return {command: text for (command, _), text in zip(wrong, lines, strict=True)}


def test_what_is_shown(endless, tmp_path):
    steps = (
        "/system be kind",
        "one",
        "/system",
        "/show",
        "/set top_k 3",
        "/set",
        "/context",
        "/tokens the king",
        "/stats",
    )
    lines = "\n".join(said(chat(endless, "\n".join([*steps, "/plain", "/model", "/system -", "/sessions"]))))
    for text in (
        "system prompt: be kind",
        "top_k 3",
        "max_tokens   6",
        "in a window of 8",
        "1 turn, 0 dropped",
        "='the",
        "first token after",
        "answers are shown as they are written",
        "registered: none",
        "there is no system prompt",
        "1 turn ",
    ):
        assert text in lines
    assert re.search(r"model +\S*endless", lines)


def test_files_go_with_the_next_message_and_only_with_that(endless, home, tmp_path):
    (tmp_path / "a b.txt").write_text("first\n")
    (tmp_path / "c.txt").write_text("second\n")
    (tmp_path / "d.bin").write_bytes(b"\xff\x00")
    (tmp_path / "e.txt").write_bytes(b"a\0b")
    steps = (
        f'/read "{tmp_path}/a b.txt"',
        "/read -",
        f'/read "{tmp_path}/a b.txt"',
        f"/glob {tmp_path}/[c-e]*",
        "/context",
        "ask",
        "more",
    )
    lines = "\n".join(said(chat(endless, "\n".join(steps))))
    message, _, second, _ = spoken(home)
    assert message == f"--- File: {tmp_path}/a b.txt ---\nfirst\n\n--- File: {tmp_path}/c.txt ---\nsecond\n\nask"
    assert second == "more"
    assert "is not UTF-8 text" in lines and "is a binary file" in lines


def test_a_byte_order_mark_is_no_part_of_an_attached_file(tmp_path):
    """Some editors write one; it used to go into the message."""
    (tmp_path / "a.py").write_bytes("\ufeffx = 1\n".encode())
    assert attachments.read(str(tmp_path / "a.py")).text == "x = 1\n"


def test_a_file_that_is_too_large_is_refused(endless, tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 1_000_001)
    assert "1,000,001 bytes; the limit is 1,000,000" in said(chat(endless, f"/read {tmp_path}/big"))[-1]


def test_export_writes_the_conversation_and_replaces_nothing(endless, tmp_path):
    file = tmp_path / "chat.md"
    result = chat(endless, f"/system be kind\none\n/export {file}\n/export {file}\n")
    assert "exists; take another name" in said(result)[-1]
    text = file.read_text()
    assert text.split("\n\n")[1:] == ["## System", "be kind", "## You", "one", "## Model", SAID.decode().strip() + "\n"]
    assert [path.name for path in tmp_path.iterdir()] == ["chat.md"]


def test_copy_uses_the_desktops_program(endless, tmp_path):
    program = tmp_path / "wl-copy"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/clip\n")
    program.chmod(0o755)
    env = {**os.environ, "WAYLAND_DISPLAY": "x", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run("chat", "-m", endless, *SIX, input=b"one\n/copy\n", env=env)
    assert (tmp_path / "clip").read_bytes() == SAID.strip()


def test_a_file_that_is_read_again_replaces_the_first(endless, home, tmp_path):
    """It used to go into the message once for each time it was named."""
    (file := tmp_path / "a.md").write_text("first\n")
    (tmp_path / "link.md").symlink_to(file)
    steps = (f"/read {file} {file}", f"/glob {tmp_path}/*.md", f"/read {tmp_path}/link.md", "/context", "ask")
    lines = said(chat(endless, "\n".join(steps)))
    assert spoken(home)[0] == f"--- File: {tmp_path}/link.md ---\nfirst\n\nask"
    assert len([line for line in lines if line.startswith("goes with the next message: ")]) == 1
    assert any(
        re.fullmatch(r"goes with the next message, read again: .*/link.md, \d tokens, 6 characters", x) for x in lines
    )
    assert any(re.fullmatch(r"  with 1 file the conversation has \d+ tokens", line) for line in lines)


def test_what_will_not_fit_is_said_when_it_is_read_and_a_chat_has_other_remedies(tmp_path):
    folder = write_tiny_folder(tmp_path / "short", sliding_window=None, max_position_embeddings=1100)
    (long := tmp_path / "long.txt").write_text("x " * 700)
    (half := tmp_path / "half.txt").write_text("x " * 300)
    steps = (f"/read {long}", "ask", "/read -", f"/read {half}", "ask", f"/read {half}", "again")
    lines = said(chat(repeat_forever(folder), "\n".join(steps), "--quiet", "--on-overflow", "stop"))
    shorten = "shorten the message, or take its files away with /read -"
    assert re.fullmatch(
        rf"the next message has 1,\d\d\d tokens already, the model's context 1,100; {shorten}", lines[0]
    )
    assert re.fullmatch(rf"error: the input has 1,\d\d\d tokens, the model's context 1,100; {shorten}", lines[1])
    room = "the model's context 1,100; /compact, /undo or /clear makes room"
    assert re.fullmatch(rf"the conversation has 1,\d\d\d tokens with the next message, {room}", lines[2]), lines
    assert re.fullmatch(rf"error: the input has 1,\d\d\d tokens, {room}", lines[3]) and len(lines) == 4


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/copy 9", "there is only 1 answer; 9 was asked for"),
        ("/edit 9", "there is only 1 message; 9 was asked for"),
        ("/undo 9", "there is only 1 turn to go back"),
        ("/copy " + "9" * 5000, "is no number of answers"),
    ],
)
def test_a_number_that_is_too_high_is_told_in_the_singular(endless, command, reason):
    assert reason in said(chat(endless, f"one\n{command}\n", "--quiet"))[-1]

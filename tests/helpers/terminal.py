"""Starts a chat in a terminal, leaves it, and reads what was asked in it."""

import io
import json
import os

import pexpect
from helpers.cli import PROGRAM

PROMPT = ">"


def terminal(model, *args, setup="", before="", **variables):
    """Start a chat in a terminal of 24 lines that are wide enough for every remark."""
    command = ["chat", "-m", str(model), "--temperature", "0", *args]
    # Nobody answers where the cursor is.
    env = {**os.environ, "PROMPT_TOOLKIT_NO_CPR": "1", "TERM": "xterm", **variables}
    env.pop("COLUMNS", None)
    child = pexpect.spawn(
        PROGRAM[0], ["-c", setup + PROGRAM[2], *command], encoding="utf-8", timeout=60, env=env, dimensions=(24, 250)
    )
    child.logfile_read = io.StringIO()
    child.expect(before)
    child.expect("chatting with")
    child.expect(PROMPT)
    return child


def leave(child):
    child.send("\x04")
    assert ended(child) == 0


def ended(child):
    """Wait for the end of a program, and return its exit status.

    The terminal ends a moment before the process does, and pexpect's close() sends it a hangup in between.
    """
    child.expect(pexpect.EOF)
    return child.wait()


def asked(home, name="*"):
    (path,) = (home / "sessions").glob(f"{name}.json")
    return [m["content"] for m in json.loads(path.read_text())["messages"] if m["role"] == "user"]

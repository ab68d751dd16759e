"""Runs a chat through a pipe and reads its remarks."""

import json

from helpers.cli import run

SIX = ("--temperature", "0", "--max-tokens", "6")
SAID = b"the the the the the the\n"


def chat(model, text, *args):
    return run("chat", "-m", model, "--save", *SIX, *args, input=text.encode())


def said(result):
    """Return the remarks on stderr, without the program's name."""
    return [line.removeprefix("mistral-mlx: ") for line in result.stderr.decode().splitlines()]


def saved(home):
    (path,) = (home / "sessions").glob("*.json")
    return json.loads(path.read_text())


def spoken(home):
    """Return what is said in the only saved session."""
    return [message["content"] for message in saved(home)["messages"]]

"""Runs a chat through a pipe and reads its remarks."""

from helpers.cli import run

SIX = ("--temperature", "0", "--max-tokens", "6")


def chat(model, text, *args):
    return run("chat", "-m", model, *SIX, *args, input=text.encode())


def said(result):
    """Return the remarks on stderr, without the program's name."""
    return [line.removeprefix("mistral-mlx: ") for line in result.stderr.decode().splitlines()]

"""What the pages of the documentation tell a reader to type."""

import re
import shlex
from collections.abc import Iterator
from typing import NamedTuple

PROGRAM = "mistral-mlx"
SHELL = ("", "sh", "bash", "console")
ENDS = re.compile(r"[()<>|&;]+|\d?>+")  # what ends the arguments of a command in a shell
# An argument that stands for one: MODEL, FILE.gguf, ORG/REPO@REV, [OPTIONS], a|b, and what is left out.
STANDS_FOR = re.compile(r"\[.*|.*\]|[A-Z]{2,}[A-Z0-9/@=_-]*(\.\w+)?|\S*\w\|\w\S*|.*(\.\.\.|…)")
HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")


class Block(NamedTuple):
    """Lines of code: what a fence says of their language, and where they begin."""

    language: str
    lines: list[str]
    start: int


def blocks(page: str) -> Iterator[Block]:
    """Yield the fenced and the indented blocks of a page in Markdown."""
    fence, found, after_blank = None, Block("", [], 0), True
    for number, line in enumerate([*page.splitlines(), ""], 1):
        mark = re.match(r"\s*```(\w*)", line)
        if mark or (fence is None and not line.startswith("    ") and line):
            if found.lines:
                yield found
            fence = (mark[1] if fence is None else None) if mark else fence
            found = Block(fence or "", [], number + 1)
        elif fence is not None or (line.startswith("    ") and (after_blank or found.lines)) or found.lines:
            found.lines.append(line.removeprefix("    ") if fence is None else line)
        after_blank = not line
    if any(found.lines):
        yield found


def typed(block: Block) -> list[str]:
    """Return what is typed in a block of the shell, each with its heredoc and all its lines.

    If some lines begin with `$`, the others are output.
    """
    lines = iter(block.lines)
    is_session = any(line.startswith("$ ") for line in block.lines)
    found = []
    for line in lines:
        if not line.strip() or line.startswith("#") or (is_session and not line.startswith("$ ")):
            continue
        text = line.removeprefix("$ ")
        while (text.endswith("\\") or _is_open(text)) and (following := next(lines, None)) is not None:
            text += "\n" + following
        if heredoc := HEREDOC.search(text):
            for line in lines:
                text += "\n" + line
                if line.strip() == heredoc[1]:
                    break
        found.append(text)
    return found


def calls(text: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of the program in a line of the shell."""
    words: list[str] | None = None
    for word in [*_words(text), ";"]:
        if words is not None and ENDS.fullmatch(word):
            yield words
            words = None
        elif words is not None:
            words.append(word)
        elif word == PROGRAM:
            words = []


def is_syntax(text: str) -> bool:
    """Return whether a line shows how to write a command, with words that stand for others."""
    command = text.split("\n")[0] if HEREDOC.search(text) else text
    return any(STANDS_FOR.fullmatch(word) for word in shlex.split(command, comments=True, posix=False))  # keeps quotes


def spans(page: str) -> list[str]:
    """Return the commands that a page names in running text."""
    prose = re.sub(r"^( {4}|```).*", "", page, flags=re.MULTILINE)
    return [text for text in re.findall(r"`([^`]+)`", prose) if text.startswith(f"{PROGRAM} ")]


def _words(text: str) -> list[str]:
    lexer = shlex.shlex(text, posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    try:
        return list(lexer)
    except ValueError:  # a heredoc in another language
        return text.split()


def _is_open(text: str) -> bool:
    """Return whether a quotation goes on in the next line."""
    if HEREDOC.search(text):
        return False
    try:
        shlex.split(text, comments=True)
    except ValueError:
        return True
    return False

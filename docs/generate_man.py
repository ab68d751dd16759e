"""Writes the man page of the program from its commands and options: python docs/generate_man.py FILE"""

import inspect
import os
import re
import sys
import textwrap
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import typer.main

from mistral_mlx.cli.app import app
from mistral_mlx.cli.options.help import synopsis, written
from mistral_mlx.version import __version__

PAGE = Path(__file__).with_name("cli.md")
NAME, SUMMARY = "mistral-mlx", "run Mistral models in the terminal"
WIDTH = 79
ESCAPED = {"\\": r"\e", "-": r"\-", "'": r"\(aq", "`": r"\(ga", "^": r"\(ha", "~": r"\(ti", '"': r"\(dq"}
ENVIRONMENT = {
    "MISTRAL_MLX_<OPTION>": "The default of an option, such as MISTRAL_MLX_TOP_P for --top-p.",
    "MISTRAL_MLX_HOME": "The folder of everything below FILES, and of the config file.",
    "MISTRAL_MLX_KERNELS": "The set of native kernels, for tests and comparisons.",
    "MISTRAL_MLX_COPY_WEIGHTS": "Whether weights are copied into memory (1), or read from their files (0).",
    "MISTRAL_MLX_JOIN_SECONDS": "How long a process waits for those that share the model with it; 9 by default.",
    "MISTRAL_MLX_DEBUG": "If set, errors show a traceback, as with --debug.",
    "NO_COLOR": "If set, there are no colours.",
    "VISUAL, EDITOR": "The editor of config edit, templates edit and /editor.",
}
FILES = {
    "~/.config/mistral-mlx/config.toml": "The config file (mistral-mlx config path prints its path).",
    "~/.local/share/mistral-mlx/models.json": "The names of registered models, and their folders.",
    "~/.local/share/mistral-mlx/models/": "The models that pull has fetched.",
    "~/.local/share/mistral-mlx/sessions/": "The saved chats; mistral-mlx sessions lists and removes them.",
    "~/.local/share/mistral-mlx/templates/": "Your prompt templates.",
    "~/.local/share/mistral-mlx/kept-prompts/": "Beginnings of prompts; mistral-mlx cache clear removes them.",
    "~/.local/share/mistral-mlx/history": "What you typed in chats; chat --no-history keeps none.",
}


def page() -> str:
    """Return the man page in the macros of man(7)."""
    program = typer.main.get_command(app)
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))))
    lines = [f'.TH {roff(NAME.upper())} 1 {date} "{NAME} {__version__}"']
    lines += [
        ".SH NAME",
        f"{roff(NAME)} \\- {roff(SUMMARY)}",
        ".SH SYNOPSIS",
        *called([], ["[OPTIONS]", "COMMAND ..."]),
    ]
    lines += [".SH DESCRIPTION", *text(program.help), ".SH OPTIONS", *options(program), ".SH COMMANDS"]
    for name, command in program.commands.items():
        lines += [f".SS {roff(name)}", *called([name], [*synopsis(command), "[OPTIONS]"]), *text(command.help)]
        lines += [*arguments(command), *options(command)]
        for sub in getattr(command, "commands", {}).values():
            lines += [*called([name, sub.name], [*synopsis(sub), "[OPTIONS]"]), *text(sub.help), *options(sub)]
    lines += [".SH ENVIRONMENT", *listed(ENVIRONMENT.items()), ".SH FILES", *listed(FILES.items())]
    lines += [".PP", *wrapped("On macOS these folders are in ~/Library/Application Support.")]
    lines += [".SH EXIT STATUS", *listed(statuses()), ".SH EXAMPLES", ".EX"]
    lines += [roff(line) for command in program.commands.values() for line in (command.epilog or "").splitlines()]
    return re.sub(r"^(\.S[HS] .*\n)\.PP\n", r"\1", "\n".join([*lines, ".EE", ""]), flags=re.MULTILINE)


def statuses() -> list[tuple[str, str]]:
    """Return the exit statuses and their meanings, which docs/cli.md lists."""
    section = PAGE.read_text("utf-8").partition("\n## Exit statuses\n")[2].partition("\n## ")[0]
    return re.findall(r"^\| ([\d, ]+) \| (.+) \|$", section, re.MULTILINE)


def called(words: list[str], rest: list[str]) -> list[str]:
    """Return the lines for how a command is called."""
    return [".PP", f".B {roff(' '.join([NAME, *words]))}", roff(" ".join(rest))]


def arguments(command: typer.core.TyperCommand) -> Iterator[str]:
    """Yield the lines for the arguments of a command."""
    found = [p for p in command.params if p.param_type_name == "argument"]
    return listed((written(p).strip("[]"), p.help) for p in found)


def options(command: typer.core.TyperCommand) -> Iterator[str]:
    """Yield the lines for the options of a command."""
    for option in (p for p in command.params if p.param_type_name == "option"):
        flags = ", ".join(rf"\fB{roff(flag)}\fR" for flag in (*option.opts, *option.secondary_opts))
        value = "" if option.is_flag else rf" \fI{roff(option.metavar)}\fR"
        default = ("on" if option.default else None) if option.is_flag else option.default
        told = "" if default in (None, "") else f" Default: {default}."
        yield from (".TP", flags + value, *wrapped(f"{option.help}{told}"))


def listed(items: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield the lines for names and what they mean."""
    for name, meaning in items:
        yield from (".TP", rf"\fB{roff(name)}\fR", *wrapped(meaning))


def text(paragraphs: str | None) -> Iterator[str]:
    """Yield the lines for paragraphs that blank lines divide."""
    for paragraph in inspect.cleandoc(paragraphs or "").split("\n\n"):
        yield from (".PP", *wrapped(paragraph))


def wrapped(words: str) -> list[str]:
    """Return the lines for running text, in which `code` is bold."""
    marked = re.sub(r"`([^`]+)`", r"<b>\1</b>", words)
    bold = roff(marked).replace("<b>", r"\fB").replace("</b>", r"\fR")
    lines = textwrap.wrap(bold, WIDTH, break_long_words=False, break_on_hyphens=False)
    return [rf"\&{line}" if line.startswith(".") else line for line in lines]


def roff(plain: str) -> str:
    """Return a text that is shown as it is: no character of it is a command, and no hyphen a dash."""
    escaped = "".join(ESCAPED.get(c, c if c.isascii() else rf"\[u{ord(c):04X}]") for c in plain)
    return rf"\&{escaped}" if escaped.startswith(".") else escaped


if __name__ == "__main__":
    target = Path(sys.argv[1])
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(page(), "ascii")

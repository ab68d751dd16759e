"""Writes all commands and options into docs/cli.md: python docs/generate_cli.py [--check]"""

import inspect
import sys
from pathlib import Path

import typer.main

from mistral_mlx.cli.app import app
from mistral_mlx.cli.options.help import synopsis, written
from mistral_mlx.cli.options.sources import Option, options_of

PAGE = Path(__file__).with_name("cli.md")
BEGIN, END = "<!-- begin: written by docs/generate_cli.py -->\n", "<!-- end -->\n"


def render(page: str) -> str:
    """Return `page` with a new text between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n{commands()}{END}{after}"


def commands() -> str:
    """Return one section for each command."""
    program = typer.main.get_command(app)
    return "\n".join(_command(name, command, list(options_of(command))) for name, command in program.commands.items())


def _command(name: str, command: typer.core.TyperCommand, options: list[Option]) -> str:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    usage = " ".join([f"mistral-mlx {name}", *synopsis(command), "[OPTIONS]"])
    lines = [f"### {name}", "", f"    {usage}", "", *inspect.cleandoc(command.help or "").split("\n"), ""]
    lines += [f"- `{written(p).strip('[]')}`: {p.help}" for p in arguments]
    subcommands = getattr(command, "commands", {}).values()
    lines += [f"- `{' '.join([name, sub.name, *synopsis(sub)])}`: {inspect.cleandoc(sub.help)}" for sub in subcommands]
    lines += [""] if arguments or subcommands else []
    lines += ["| option | variable | default | |", "|---|---|---|---|"] if options else []
    lines += [_row(option) for option in options]
    examples = [f"    {example}" for example in (command.epilog or "").splitlines()]
    return "\n".join([*lines, *([""] if options else []), *examples, *([""] if examples else [])]) + "\n"


def _row(option: Option) -> str:
    parameter = option.parameter
    flags = ", ".join(f"`{flag}`" for flag in (*parameter.opts, *parameter.secondary_opts))
    metavar = "" if option.kind is bool else f" {parameter.metavar}"
    if option.kind is bool:
        default = "on" if option.default else ""
    else:
        default = "" if option.default is None else f"`{option.default}`"
    variable = f"`{parameter.envvar}`" if parameter.envvar else ""
    cells = (flags + metavar, variable, default, parameter.help)
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


if __name__ == "__main__":
    written = render(PAGE.read_text("utf-8"))
    if "--check" in sys.argv:
        sys.exit(written != PAGE.read_text("utf-8"))
    PAGE.write_text(written, "utf-8")

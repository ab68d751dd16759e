"""How ``--help`` shows a command: its usage, arguments and options, and its examples."""

from typing import TYPE_CHECKING, Any, NoReturn

import typer
from typer.core import TyperCommand, TyperOption

from mistral_mlx.cli.terminal.streams import write_raw

from .shared import PANELS
from .values import take_plain_values

USUAL: tuple[str | None, ...] = (  # options that come first in --help, in this order; None is those without a section
    *("model", "max_tokens", "system", "file", "temperature", "seed", "schema", "extract", "output", "resume", "last"),
    *("text", "against", "bits", "target_bpw", "calibrate", "verify", "name", "overwrite", "dry_run"),
    *(None, "stats", "as_json", "quiet", "help"),
)
if TYPE_CHECKING:
    Parsed = TyperCommand
else:
    Parsed = object


class PlainValues:
    """What a command is besides, so that its parameters take plain values as they are."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Return the parameters, with those that typer adds later; see click."""
        parameters: list[Any] = super().get_params(ctx)  # type: ignore[misc]  # it is that of typer's class
        take_plain_values(self, parameters)
        return parameters

    def get_help_option(self, ctx: Any) -> Any:
        """Return the option --help; see click. Its page is written as all output is, with the same errors."""
        option = super().get_help_option(ctx)  # type: ignore[misc]  # it is that of typer's class
        if option is not None:
            option.callback = _on_help
        return option


class Page(PlainValues, Parsed):
    """What a command is besides, so that its page of help is ours."""

    elsewhere = ""  # where else its options can be set

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the line that says how the command is called; see click."""
        return ["[OPTIONS]", *synopsis(self)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then the usual options and those without a section, then the others by section."""
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], **{panel: [] for panel in PANELS}}
        for parameter in sorted(self.get_params(ctx), key=_use):
            row = parameter.get_help_record(ctx)
            if row is not None:
                if isinstance(parameter, TyperOption):
                    is_usual = _use(parameter) < len(USUAL)
                    rows[("" if is_usual else parameter.rich_help_panel) or "Options"].append(row)
                else:
                    rows["Arguments"].append((written(parameter).strip("[]"), row[1]))
        for title, of in rows.items():
            if of:
                with formatter.section(title):
                    formatter.write_dl(of)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are, and where else options can be set."""
        if self.epilog:
            formatter.write("\nExamples:\n" + "".join(f"  {line}\n" for line in self.epilog.splitlines()))
        if self.elsewhere:
            formatter.write(f"\n{self.elsewhere}")


def show_help(ctx: Any) -> NoReturn:
    """Write the page of a command, and end."""
    write_raw(f"{ctx.get_help()}\n")
    raise typer.Exit


def _on_help(ctx: Any, parameter: Any, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        show_help(ctx)


def _use(parameter: Any) -> int:
    """Return the place of a parameter among the usual ones; the same number for all others."""
    if parameter.name in USUAL:
        return USUAL.index(parameter.name)
    return len(USUAL) if parameter.rich_help_panel else USUAL.index(None)


def synopsis(command: Any) -> list[str]:
    """Return what a command is called with: its arguments, and the options that it needs."""
    arguments = [written(p) for p in command.params if p.param_type_name == "argument"]
    return arguments + [f"{p.opts[0]} {p.metavar}" for p in command.params if p.required and p.opts[0].startswith("-")]


def written(argument: Any) -> str:
    """Return the name of an argument, in brackets if it can be left out."""
    name = str(argument.metavar or argument.name.upper())
    return name if argument.required or argument.metavar else f"[{name}]"

"""The classes of all commands: where the values of their options come from, and what is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import ModelError, OptionError, shown

from . import following
from .config_file import Config, read_config
from .help import Page, PlainValues, show_help
from .other_programs import OF_GROUPS, OF_OTHERS
from .refusals import before_command, check_command, in_our_words, too_many, with_hints
from .sources import Option, Setting, config_path, options_of, unknown_variables

ELSEWHERE = """\
Defaults can be set by MISTRAL_MLX_<OPTION> (MISTRAL_MLX_TOP_P for --top-p) or
in the config file; see mistral-mlx config. Exit statuses: docs/cli.md.
"""
SOURCES = {"ENVIRONMENT": "environment", "DEFAULT_MAP": "config file", "DEFAULT": "default"}  # typer's names, and ours


class Strict(Page):
    """What a command without commands is besides, so that what it does not take is refused in our words."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line; see click. Raises OptionError for an unknown option, and for too many arguments."""
        ctx.allow_extra_args = True
        typed = list(args)  # parsing empties it
        with with_hints(ctx, typed):
            with in_our_words(ctx):
                rest = super().parse_args(ctx, args)
            if rest and not ctx.resilient_parsing:
                raise OptionError(too_many(ctx, rest, typed))
        return rest


class Subcommand(Strict, TyperCommand):
    """A command of a command."""


class Subgroup(Page, TyperGroup):
    """A command that has commands."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the line that says how the command is called; see click."""
        return ["[OPTIONS]", "[COMMAND]" if self.invoke_without_command else "COMMAND"]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write the options, then the commands."""
        super().format_options(ctx, formatter)
        self.format_commands(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is meant; see click. Raises OptionError if there is none."""
        check_command(args, self.commands, OF_GROUPS.get(str(self.name), {}), f"{self.name} ")
        return super().resolve_command(ctx, args)


class Configurable(Page):
    """What a command is besides, so that its options have variables and keys in the config file."""

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.options = list(options_of(self))
        for option in self.options:
            option.bind_variable()

    @property
    def is_settable(self) -> bool:
        """Whether anything but the command line gives values to its options; only then the config file is read."""
        return any(option.settable for option in self.options)

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line; see click. Raises OptionError, with its origin, for a value of the wrong type."""
        given: dict[str, Any] = {}
        try:
            if self.is_settable and not ctx.resilient_parsing:  # as a shell's completion is
                with in_our_words(ctx):
                    given = self.make_parser(ctx).parse_args(args=list(args))[0]
                if not given.get("help"):
                    self._take_config(ctx)
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            self._refuse_type(error, ctx, given)
            raise

    def invoke(self, ctx: Any) -> Any:
        """Run the command. Errors about a value out of range, or a model that cannot be used, name its origin."""
        if self.is_settable:
            warn_of_settings(ctx)
        try:
            return following.invoke(ctx, super().invoke)
        except OptionError as error:
            text = str(error)
            for option in self.options:
                for name in (*option.flags, option.key):
                    if text.startswith(f"{name} is ") and (origin := self._origin(option, ctx)):
                        raise OptionError(origin + text.removeprefix(name)) from error
            raise
        except ModelError as error:
            for option in (option for option in self.options if option.name == "model"):
                origin, value = self._origin(option, ctx), ctx.params["model"]
                if origin and not ctx.params.get("name") and shown(value, limit=200) in str(error):
                    raise ModelError(f"{error} ({shown(value)} is what {origin} says)") from error
            raise

    def settings(self, parent: Any) -> Iterator[Setting]:
        """Yield the value of each option that can be set, for a command line that gives none. Raises OptionError."""
        ctx = self.make_context(self.name, [], parent=parent, resilient_parsing=True)
        in_file = self._in_file(ctx)
        ctx.default_map = {name: value for name, (value, _) in in_file.items()}
        for option in (option for option in self.options if option.settable):
            value, source = option.parameter.consume_value(ctx, {})
            ctx.set_parameter_source(option.name, source)
            where = in_file[option.name][1] if source.name == "DEFAULT_MAP" else None
            if source.name == "ENVIRONMENT":
                value, where = self._from_environment(option, value, ctx), option.variable
            yield Setting(option, option.default if source.name == "DEFAULT" else value, SOURCES[source.name], where)

    def _take_config(self, ctx: Any) -> None:
        """Take the values of the config file as defaults. Raises OptionError if it says something wrong about them."""
        ctx.default_map = {name: value for name, (value, _) in self._in_file(ctx).items()}
        for fault in self._config(ctx).faults:
            if fault.concerns(self.name or "", self.options):
                raise OptionError(fault.text)

    def _config(self, ctx: Any) -> Config:
        return read_config(config_path(), commands_of(ctx))

    def _in_file(self, ctx: Any) -> dict[str, tuple[object, str]]:
        """Return the values that the config file gives to options, each with its key there."""
        config = self._config(ctx)
        found = {option.name: config.value(self.name or "", option) for option in self.options}
        return {name: value for name, value in found.items() if value is not None}

    def _origin(self, option: Option, ctx: Any) -> str:
        """Return the place that gave an option its value; empty for the command line and the default."""
        source = ctx.get_parameter_source(option.name)
        if source.name == "DEFAULT_MAP":
            return f"{shown(str(config_path()), limit=200)}: {self._in_file(ctx)[option.name][1]}"
        return option.variable if source.name == "ENVIRONMENT" else ""

    def _refuse_type(self, error: typer.BadParameter, ctx: Any, given: dict[str, Any]) -> None:
        """Raise OptionError in place of typer's error for a value of the wrong type."""
        for option in (option for option in self.options if option.parameter is error.param):
            value, _ = option.parameter.consume_value(ctx, given)
            if value is not None:  # it is not just missing
                name = self._origin(option, ctx) or option.flags[0]
                raise OptionError(f"{name} is {shown(repr(value))}; it must be {option.allowed}") from error

    def _from_environment(self, option: Option, value: Any, ctx: Any) -> object:
        try:
            return value if option.is_path else option.parameter.process_value(ctx, value)
        except typer.BadParameter as error:
            self._refuse_type(error, ctx, {})
            raise


class Command(Strict, Configurable, TyperCommand):
    """A command whose options can be set elsewhere."""

    elsewhere = ELSEWHERE


class CommandGroup(Configurable, Subgroup):
    """A command that has commands, and options that can be set elsewhere."""

    elsewhere = ELSEWHERE


class Group(PlainValues, TyperGroup):
    """The program, as a command that has commands, which are shown in sections."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse a command line; see click. Raises OptionError for an option that belongs to a command, or to none."""
        with in_our_words(ctx, before_command):
            return super().parse_args(ctx, args)

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Write the names and summaries of the commands by section; see click."""
        commands: dict[str, Any] = {name: self.commands[name] for name in self.list_commands(ctx)}
        width = max(map(len, commands))
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, command in commands.items():
            row = name.ljust(width), command.get_short_help_str(formatter.width)
            panels.setdefault(command.rich_help_panel or "Commands", []).append(row)
        for title, rows in panels.items():
            with formatter.section(title):
                formatter.write_dl(rows)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Return the command that is meant; see click. Raises OptionError if there is none."""
        if args[0] == "help":
            names = [name for name in args[1:] if not name.startswith("-")]
            if not names:
                show_help(ctx)
            args = [*names, "--help"]
        check_command(args, self.commands, OF_OTHERS)
        following.check_command(args[0])
        return super().resolve_command(ctx, args)


class Application(typer.Typer):
    """The program: its commands are of the classes above."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(cls=Group, **settings)

    def command(self, *args: Any, **settings: Any) -> Callable[[Any], Any]:
        """Register a command; see typer.Typer."""
        return super().command(*args, **{"cls": Command, **settings})


class Subcommands(typer.Typer):
    """The commands of a command."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"cls": Subgroup, "rich_markup_mode": None, **settings})

    def command(self, *args: Any, **settings: Any) -> Callable[[Any], Any]:
        """Register a command; see typer.Typer."""
        return super().command(*args, **{"cls": Subcommand, **settings})


def commands_of(ctx: Any) -> dict[str, list[Option]]:
    """Return the options of every command of the program that has settings."""
    commands = getattr(ctx.find_root().command, "commands", {})
    return {name: command.options for name, command in commands.items() if isinstance(command, Configurable)}


def warn_of_settings(ctx: Any, *, all_faults: bool = False) -> None:
    """Say what is wrong with the config file, and which variables begin like ours and have no effect, unless quiet."""
    notes, known = Notes(quiet=bool(ctx.params.get("quiet"))), commands_of(ctx)
    faults = [fault.text for fault in read_config(config_path(), known).faults]
    if len(faults) > 1 and not all_faults:
        faults = [f"{faults[0]} (and {len(faults) - 1} more: mistral-mlx config)"]
    for fault in faults:
        notes.say(fault)
    remark = unknown_variables([option for options in known.values() for option in options])
    if remark:
        notes.say(remark)

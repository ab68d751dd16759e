"""What is said of command lines that name a command, an option or an argument that there is not."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import typer

from mistral_mlx.cli.models.registry import model_names
from mistral_mlx.errors import OptionError, shown

from .other_programs import OPTIONS_OF_OTHERS, WITHOUT_NUMBER
from .sources import near

REPLACED = {"--force": ("--ignore-memory", "--overwrite")}  # flags of earlier versions
VERSION = ("-v", "-V")  # as other programs call --version
TEXTS = ("prompt", "text")  # arguments that are running text


@contextmanager
def in_our_words(ctx: Any, message: Callable[[Any, str], str] | None = None) -> Iterator[None]:
    """Raise OptionError, with a `message`, for typer's error about an option that there is not."""
    try:
        yield
    except typer.TyperException as error:
        if hasattr(error, "option_name") and hasattr(error, "possibilities"):  # typer does not give out its class
            raise OptionError((message or no_option)(ctx, str(error.option_name))) from error
        raise


def no_option(ctx: Any, flag: str) -> str:
    """Return the message for an option that the command of `ctx` does not have."""
    flags = [name for p in ctx.command.params if p.param_type_name == "option" for name in (*p.opts, *p.secondary_opts)]
    for renamed in set(flags).intersection(REPLACED.get(flag, ())):
        return f"{flag} is called {renamed} in this command"
    hint = f"; {OPTIONS_OF_OTHERS[flag]}" if flag in OPTIONS_OF_OTHERS else near(flag, flags, else_all=False)
    return f"there is no option {shown(flag)}{hint} (see {ctx.command_path} --help)"


def before_command(ctx: Any, flag: str) -> str:
    """Return the message for an option that the program does not have before the name of a command."""
    if flag in VERSION:
        return f"there is no option {flag} before a command; --version shows the version"
    having = [name for name, command in ctx.command.commands.items() if any(flag in p.opts for p in command.params)]
    if having:
        name = "complete" if "complete" in having else having[0]
        return f"{flag} stands after the command: {ctx.command_path} {name} {flag} …"
    return f"there is no option {shown(flag)} before a command (see {ctx.command_path} --help)"


@contextmanager
def with_hints(ctx: Any, args: Sequence[str]) -> Iterator[None]:
    """Raise another OptionError where `args`, which are refused, have an option as only other programs write it.

    Those are several letters after one dash, which here are several options, or one and its value.
    """
    try:
        yield
    except (OptionError, typer.BadParameter) as error:
        for flag in args:
            if flag in OPTIONS_OF_OTHERS and flag[1] != "-" and len(flag) > 2:
                raise OptionError(no_option(ctx, flag)) from error
        raise


def too_many(ctx: Any, rest: Sequence[str], args: Sequence[str]) -> str:
    """Return the message for the `rest` of the arguments `args`, which the command of `ctx` does not take."""
    for flag, value in pairwise(args):
        if value.isdecimal() and (ctx.command.name, flag) in WITHOUT_NUMBER:
            return WITHOUT_NUMBER[ctx.command.name, flag]
    arguments = [p.name for p in ctx.command.params if p.param_type_name == "argument"]
    if not arguments or arguments[-1] not in TEXTS:
        return f"{shown(rest[0])} is an argument too many (see {ctx.command_path} --help)"
    first, after = ctx.params[arguments[-1]], " ".join(rest)
    if first in model_names():
        return f'a model is named with -m: {ctx.command_path} -m {first} "{shown(after, limit=60)}"'
    words = shown(f"{first} {after}", limit=60)
    return f'the {arguments[-1]} is more than one argument; put it in quotes: "{words}"'


def check_command(args: Sequence[str], ours: Collection[str], others: Mapping[str, str], before: str = "") -> None:
    """Raise OptionError for a command that there is not; it names ours where only other programs have it."""
    if args and args[0] not in ours:
        hint = f"; {others[args[0]]}" if args[0] in others else near(args[0], ours)
        if not before and args[0] in model_names():
            hint = f"; it is a model: mistral-mlx chat -m {args[0]}"
        raise OptionError(f"there is no command {before}{shown(args[0])}{hint}")

"""What is said of command lines that name a command, an option or an argument that there is not."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import typer

from mistral_mlx.cli.models.registry import model_names
from mistral_mlx.errors import OptionError, shown

from .other_programs import OPTIONS_OF_OTHERS
from .sources import near

REPLACED = {"--force": ("--ignore-memory", "--overwrite")}  # flags of earlier versions
TEXTS = ("prompt", "text")  # arguments that are running text


@contextmanager
def in_our_words(ctx: Any) -> Iterator[None]:
    """Raise OptionError for typer's error about an option that the command of `ctx` does not have."""
    try:
        yield
    except typer.TyperException as error:
        if hasattr(error, "option_name") and hasattr(error, "possibilities"):  # typer does not give out its class
            raise OptionError(no_option(ctx, str(error.option_name))) from error
        raise


def no_option(ctx: Any, flag: str) -> str:
    """Return the message for an option that the command of `ctx` does not have."""
    flags = [name for p in ctx.command.params if p.param_type_name == "option" for name in (*p.opts, *p.secondary_opts)]
    for renamed in set(flags).intersection(REPLACED.get(flag, ())):
        return f"{flag} is called {renamed} in this command"
    hint = f"; {OPTIONS_OF_OTHERS[flag]}" if flag in OPTIONS_OF_OTHERS else near(flag, flags, else_all=False)
    return f"there is no option {shown(flag)}{hint} (see {ctx.command_path} --help)"


def too_many(ctx: Any, rest: Sequence[str]) -> str:
    """Return the message for the `rest` of the arguments, which the command of `ctx` does not take."""
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
        raise OptionError(f"there is no command {before}{shown(args[0])}{hint}")

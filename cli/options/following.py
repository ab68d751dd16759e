"""What the options of a command mean to a process that follows rank 0: which model it shares, and what computes."""

import os
import signal
import sys
import time
from typing import Any

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import keep_stderr, silence_stdout
from mistral_mlx.distributed.launched import launched
from mistral_mlx.errors import GroupError, OptionError, shown

from .shared import chosen_model

SHARING = ("complete", "chat", "batch", "bench")  # the commands that several processes can run


def follows() -> bool:
    """Whether another process has the prompt, and this one a share of the model."""
    me = launched()
    return me is not None and me.follows


def sharing_streams() -> None:
    """Leave standard output to rank 0, and to a follower no input; keep what MLX itself writes off standard error."""
    if "MLX_RING_VERBOSE" not in os.environ:
        keep_stderr()
    if follows():
        silence_stdout()
        if not sys.stdin.isatty():  # else somebody started this process by hand, and can end it so
            signal.signal(signal.SIGINT, signal.SIG_IGN)


def is_told_by_rank_0(error: BaseException) -> bool:
    """Whether rank 0 has the same error to report, and on the same terminal as this process."""
    if sys.stderr.isatty() or not follows():
        return False
    if isinstance(error, GroupError):
        return error.is_known
    return isinstance(error, OptionError | typer.TyperException)


def check_command(name: str) -> None:
    """Raise OptionError if several processes cannot run a command."""
    if launched() is not None and name not in SHARING:
        raise OptionError(f"{shown(name)} does not run on several processes; leave out mlx.launch")


def follow(ctx: Any) -> None:
    """Follow rank 0 with the model that the options of a command name. Raises typer.Exit at the end."""
    from mistral_mlx.cli.models.opening import use_machine
    from mistral_mlx.cli.models.sharing import follow_rank_0

    me, notes = launched(), Notes(quiet=True)
    assert me is not None
    path = registry.resolve(chosen_model(ctx.params.get("name") or ctx.params["model"], notes))
    use_machine(ctx.params["device"], ctx.params["threads"], notes)
    try:
        raise typer.Exit(follow_rank_0(me, path))
    except GroupError as error:
        if error.is_known:
            time.sleep(1)  # mlx.launch kills all when the first one ends; rank 0 has something to say
        raise

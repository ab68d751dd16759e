"""What the options of a command mean to a process that follows rank 0: which model it shares, and what computes."""

import os
import signal
import stat
import sys
import termios
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted, expect_end
from mistral_mlx.cli.terminal.streams import keep_stderr, silence_stdout
from mistral_mlx.distributed.launched import Launched, join_seconds, launched
from mistral_mlx.errors import GroupError, OptionError, shown

from .shared import chosen_model

SAYS_S = 2.0  # in which rank 0 can say what it has to, even if it starts later
LEAVES_S = 3.0  # after which a follower leaves that was interrupted with rank 0
SHARING = ("complete", "chat", "batch", "bench")  # the commands that several processes can run

_begun: list[Launched] = []  # rank 0, when a command has begun that others follow


def follows() -> bool:
    """Whether another process has the prompt, and this one a share of the model."""
    try:
        me = launched()
    except GroupError:  # which is reported
        return False
    return me is not None and me.follows


def sharing_streams() -> None:
    """Leave standard output to rank 0, and to a follower no input; keep what MLX itself writes off standard error."""
    if "MLX_RING_VERBOSE" not in os.environ:
        keep_stderr()
    if follows():
        silence_stdout()
        if shares_terminal():
            signal.signal(signal.SIGINT, _leave_soon)


def shares_terminal() -> bool:
    """Whether all processes write to one terminal: to mlx.launch through pipes, from elsewhere without an echo."""
    try:
        if sys.stderr.isatty():
            return not termios.tcgetattr(sys.stderr)[3] & termios.ECHO
        return stat.S_ISFIFO(os.fstat(sys.stderr.fileno()).st_mode)
    except (OSError, ValueError, termios.error):  # it is no file, or the terminal is gone
        return False


def is_told_by_rank_0(error: BaseException) -> bool:
    """Whether rank 0 has the same error to report, and on the same terminal as this process."""
    if not follows() or not shares_terminal():
        return False
    if isinstance(error, GroupError):
        return error.is_known
    return isinstance(error, OptionError | typer.TyperException | Interrupted)


def leave_word_to_rank_0(error: BaseException) -> None:
    """Give rank 0 the time to say its error: mlx.launch kills all when the first one ends."""
    if not isinstance(error, Interrupted):
        time.sleep(SAYS_S)


def let_followers_end(status: int, why: str) -> None:
    """Let the followers of this process end, if it is rank 0 and has begun a command that others follow."""
    if _begun:
        from mistral_mlx.cli.models.sharing import end

        end(_begun[0], status, why)


def check_command(name: str) -> None:
    """Raise OptionError if several processes cannot run a command."""
    if launched() is not None and name not in SHARING:
        raise OptionError(f"{shown(name)} does not run on several processes; leave out mlx.launch")


def invoke(ctx: Any, run: Callable[[Any], Any]) -> Any:
    """Run a command of rank 0, or of a program that runs alone; a follower follows instead."""
    me = launched()
    if me is not None and me.follows:
        raise typer.Exit(_follow(me, ctx))
    if me is not None and ctx.command.name in SHARING:
        join_seconds()  # which may be wrong
        _begun.append(me)
        if shares_terminal():  # until all have joined, another process that fails says so
            expect_end(Status.LOST, "")
    return run(ctx)


def _follow(me: Launched, ctx: Any) -> int:
    """Follow rank 0 with the model that the options of a command name; return the exit status for the end."""
    from mistral_mlx.cli.models.opening import use_machine
    from mistral_mlx.cli.models.sharing import follow_rank_0
    from mistral_mlx.files.folder import ModelFolder
    from mistral_mlx.model.loading import Inspected, inspect_model

    notes = Notes(quiet=True)
    if sys.stderr.isatty() and not shares_terminal():
        Notes(quiet=ctx.params["quiet"]).say(f"rank {me.rank} of {me.size} follows rank 0; Ctrl-C here ends all")

    def opened() -> Inspected:
        name = None if ctx.params.get("resume") else ctx.params.get("name")  # the session's, which only rank 0 has
        path = registry.resolve(chosen_model(name or ctx.params["model"], notes))
        use_machine(ctx.params["device"], ctx.params["threads"], notes)
        return inspect_model(ModelFolder(path))

    try:
        return follow_rank_0(me, opened)
    finally:
        if sys.stdin.isatty():
            termios.tcflush(sys.stdin, termios.TCIFLUSH)  # nobody has read it, and the shell must not run it


def _leave_soon(number: int, frame: FrameType | None) -> None:
    """End by Ctrl-C a while later: rank 0 has got it as well, and ends in its own way, if mlx.launch lets it.

    mlx.launch is dead then, and passes nothing on: a chat would wait for ever for its next message.
    """
    timer = threading.Timer(LEAVES_S, os._exit, [Status.INTERRUPTED])
    timer.daemon = True
    timer.start()

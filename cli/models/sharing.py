"""A model shared by the processes that mlx.launch started: rank 0 opens it like any other, the rest follow it."""

from pathlib import Path

from mistral_mlx import kernels
from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import end_with
from mistral_mlx.distributed.agree import Wanted, agreed, loaded, refuse, split
from mistral_mlx.distributed.follower import follow
from mistral_mlx.distributed.group import join
from mistral_mlx.distributed.launched import Launched, join_seconds
from mistral_mlx.distributed.leader import Leader
from mistral_mlx.errors import MistralMLXError, OptionError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.loading import Inspected, inspect_model
from mistral_mlx.session.fingerprint import folder_fingerprint

_leaders: list[Leader] = []  # at most one


def open_shared(me: Launched, model: Inspected, wanted: Wanted, notes: Notes) -> Leader:
    """Return the model of rank 0 when all processes have loaded their shares.

    Raises GroupError if they do not come or do not fit together, OptionError if the model cannot be split.
    """
    if _leaders:
        raise OptionError("a model that several processes share cannot be changed; leave, and start again")
    group = join(me, join_seconds())
    try:
        split(model, me.size, wanted, [1] * me.size)
    except MistralMLXError as error:
        refuse(group, error)
        raise
    _, share = agreed(group, model, wanted)
    leader = Leader(group, share, loaded(group, model, share))
    leader.fingerprint = folder_fingerprint(model)
    _leaders.append(leader)
    notes.say(f"{me.size} processes share the model: {_said(wanted)}")
    group.watch(lambda: end_with(Status.LOST, "one of the processes that share the model has ended"))
    return leader


def follow_rank_0(me: Launched, path: Path) -> int:
    """Do what rank 0 says, with a share of the model in the folder `path`; return the exit status for the end.

    Raises GroupError if a process is lost, ModelError if the model cannot be opened.
    """
    group = join(me, join_seconds())
    model = inspect_model(ModelFolder(path))
    wanted, share = agreed(group, model, None)
    kernels.set_exact(wanted.exact)
    return follow(group, share, loaded(group, model, share))


def end(status: int) -> None:
    """Let the processes that follow this one end with the same status."""
    for leader in _leaders:
        leader.end(status)


def _said(wanted: Wanted) -> str:
    return "each has some of the layers" if wanted.pipeline else "each has some of the heads and hidden units"

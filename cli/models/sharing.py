"""A model shared by the processes that mlx.launch started: rank 0 opens it like any other, the rest follow it."""

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import end_now, expect_end, expect_no_end
from mistral_mlx.distributed.agree import Refused, Wanted, agreed, excused, loaded, refuse, split
from mistral_mlx.distributed.follower import follow
from mistral_mlx.distributed.group import Group
from mistral_mlx.distributed.joining import join
from mistral_mlx.distributed.launched import Launched, join_seconds
from mistral_mlx.distributed.leader import Leader
from mistral_mlx.errors import GroupError, MistralMLXError, OptionError
from mistral_mlx.model.loading import Inspected
from mistral_mlx.session.fingerprint import folder_fingerprint

LOST = "one of the processes that share the model has ended"
REFUSED_S = 5.0  # for which the others are waited for when they are told that they are not needed

Result = TypeVar("Result")


@dataclass
class Shared:
    """How far rank 0 is."""

    has_begun: bool = False  # to join the others
    group: Group | None = None  # while the others do not know yet what is wanted
    leader: Leader | None = None


_shared = Shared()


def open_shared(me: Launched, model: Inspected, wanted: Wanted, notes: Notes) -> Leader:
    """Return the model of rank 0 when all processes have loaded their shares.

    Raises GroupError if they do not come or do not fit together, OptionError if the model cannot be split.
    """
    if _shared.has_begun:
        raise OptionError("a model that several processes share cannot be changed; leave, and start again")
    _shared.has_begun = True
    _shared.leader = apart(lambda: _opened(me, model, wanted))
    notes.say(f"{me.size} processes share the model: {_said(wanted)}")
    return _shared.leader


def follow_rank_0(me: Launched, opened: Callable[[], Inspected]) -> int:
    """Do what rank 0 says, with a share of the model that is `opened`; return the exit status for the end.

    Raises GroupError if a process is lost, or if one cannot go on.
    """
    return apart(lambda: _followed(me, opened))


def end(me: Launched, status: int, why: str) -> None:
    """Let the processes that follow this one end: with the same status, or because it could not begin."""
    if _shared.leader is not None:
        _shared.leader.end(status)
    elif not _shared.has_begun or _shared.group is not None:
        thread = threading.Thread(target=_refuse, args=(me, status, why), daemon=True)
        thread.start()
        thread.join(join_seconds() + REFUSED_S)


def apart(work: Callable[[], Result]) -> Result:
    """Return what `work` returns, or raise what it raises; it runs in a thread, so that a signal ends it at once."""
    future, device = Future[Result](), mx.default_device()

    def run() -> None:
        mx.set_default_device(device)  # MLX knows one for each thread
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future.result()


def _opened(me: Launched, model: Inspected, wanted: Wanted) -> Leader:
    _shared.group = group = _joined(me)
    split(model, me.size, wanted, [1] * me.size)
    _shared.group = None
    _, share = agreed(group, model, wanted)
    expect_no_end()
    leader = Leader(group, share, loaded(group, model, share), _end_at_once)
    leader.fingerprint = folder_fingerprint(model)
    return leader


def _followed(me: Launched, opened: Callable[[], Inspected]) -> int:
    group = _joined(me)
    try:
        model = opened()
    except (MistralMLXError, OSError) as error:
        excused(group, error)
    try:
        wanted, share = agreed(group, model, None)
    except Refused as refused:
        if refused.why:
            raise
        return refused.status
    kernels.set_exact(wanted.exact)
    return follow(group, share, loaded(group, model, share))


def _joined(me: Launched) -> Group:
    """Return the group; from now on a process that is lost ends this one."""
    group = join(me, join_seconds())
    group.watch(lambda: expect_end(Status.LOST, LOST), end_now)
    return group


def _end_at_once(why: str) -> None:
    Notes().error(why)
    os._exit(Status.LOST)


def _refuse(me: Launched, status: int, why: str) -> None:
    with suppress(GroupError):
        group = _shared.group or join(me, join_seconds())
        refuse(group, status, why)


def _said(wanted: Wanted) -> str:
    return "each has some of the layers" if wanted.pipeline else "each has some of the heads and hidden units"

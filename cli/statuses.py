"""The exit statuses of the program; docs/cli.md lists the same."""

import signal
from enum import IntEnum

from mistral_mlx.errors import (
    ConstraintError,
    ContextError,
    ConversionError,
    GroupError,
    ModelError,
    OptionError,
    SaveError,
    SessionError,
)

SIGNALLED = 128  # plus the number of the signal that ended a program, as shells report it


class Status(IntEnum):
    """How a command ended."""

    DONE = 0
    INTERNAL = 1  # a bug, an incomplete installation, or a fault that doctor found
    NOTHING_FOUND = 1  # by a search, as grep says it
    USAGE = 2  # an option, or the prompt
    MODEL = 3  # the model or a saved session: missing, damaged, unsupported, hostile, or too large for the memory
    CONTEXT = 4  # the input does not fit the model's context
    OUTPUT = 5  # no space, the target exists, nothing could be downloaded or written
    CUT_SHORT = 6  # a limit cut the answer short, with --fail-on-length, or one that has to be whole
    NO_CODE_BLOCK = 7  # the answer has none, with --extract
    SOME_FAILED = 8  # batch could not answer some lines
    UNVERIFIED = 9  # convert --verify: the target is written, but it could not be compared with its source
    LOST = 10  # of several processes that share a model: one is lost, does not come, or does not fit the others
    HUNG_UP = SIGNALLED + signal.SIGHUP  # the terminal was closed
    INTERRUPTED = SIGNALLED + signal.SIGINT  # Ctrl-C
    PIPE_CLOSED = SIGNALLED + signal.SIGPIPE  # nobody reads the output any more
    TERMINATED = SIGNALLED + signal.SIGTERM  # kill


OF_ERRORS: list[tuple[type[Exception], Status]] = [
    (ConstraintError, Status.CUT_SHORT),
    (OptionError, Status.USAGE),
    (ModelError, Status.MODEL),
    (SaveError, Status.OUTPUT),
    (SessionError, Status.MODEL),
    (GroupError, Status.LOST),
    (ContextError, Status.CONTEXT),
    (ConversionError, Status.OUTPUT),
    (OSError, Status.OUTPUT),
]


def status_of(error: Exception) -> Status:
    """Return the exit status for an error of the engine or the system."""
    return next((status for kind, status in OF_ERRORS if isinstance(error, kind)), Status.INTERNAL)

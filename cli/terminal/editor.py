"""Opens a file in the user's editor."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from mistral_mlx.errors import OptionError, shown

from .signals import left_to_child
from .streams import write_raw

# The main screen, ordinary keys, no reports of the mouse and no marks around pasted texts.
NORMAL_SCREEN = "\x1b[?1049l\x1b[?1l\x1b>\x1b[?1000l\x1b[?1002l\x1b[?1006l\x1b[?2004l"


def edit(file: Path, command: str | None = None) -> None:
    """Run `command`, by default $VISUAL, $EDITOR or on a terminal vi, on `file`. Raises OptionError if it fails."""
    command = command or os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    if command == "vi" and not sys.stdin.isatty():
        raise OptionError(f"there is no terminal for an editor; set EDITOR, or edit {shown(str(file), limit=200)}")
    try:
        with left_to_child():
            status = subprocess.run([*shlex.split(command), str(file)]).returncode
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise OptionError(f"the editor {shown(command)} cannot be run ({why}); set EDITOR") from error
    if status < 0 and sys.stdout.isatty():
        write_raw(NORMAL_SCREEN)  # it was killed, and has not left its own
    if status:
        raise OptionError(f"the editor {shown(command)} ended with status {status}")

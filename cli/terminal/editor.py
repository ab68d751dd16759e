"""Opens a file in the user's editor."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from mistral_mlx.errors import OptionError, shown

from .signals import left_to_child


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
    if status:
        raise OptionError(f"the editor {shown(command)} ended with status {status}")

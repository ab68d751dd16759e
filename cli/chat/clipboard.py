"""Copies to the clipboard: with the desktop's own program, or else through the terminal (OSC 52)."""

import base64
import os
import shutil
import subprocess
import sys

from mistral_mlx.errors import OptionError

PROGRAMS = {  # by the environment variable that must be set
    "WAYLAND_DISPLAY": ["wl-copy"],
    "DISPLAY": ["xclip", "-selection", "clipboard"],
    "TMUX": ["tmux", "load-buffer", "-w", "-"],  # which passes it on to its terminal
    "": ["pbcopy"],
}
MAX_OSC_BYTES = 74_994  # of text: what xterm takes, 100,000 with the sequence and in base64
TIMEOUT_S = 5.0


def copy(text: str) -> str:
    """Put `text` on the clipboard and return what did it. Raises OptionError if nothing works."""
    for variable, command in PROGRAMS.items():
        if (not variable or os.environ.get(variable)) and shutil.which(command[0]):
            return _by_program(text, command)
    if not sys.stderr.isatty() or os.environ.get("TERM", "dumb") == "dumb":
        raise OptionError("there is no clipboard here: no terminal, and neither wl-copy, xclip nor pbcopy")
    data = text.encode("utf-8", errors="replace")
    if len(data) > MAX_OSC_BYTES:
        raise OptionError(f"the answer has {len(data):,} bytes; through the terminal {MAX_OSC_BYTES:,} can be copied")
    print(f"\x1b]52;c;{base64.b64encode(data).decode()}\x07", end="", file=sys.stderr, flush=True)
    return "the terminal (OSC 52), if it allows it"


def _by_program(text: str, command: list[str]) -> str:
    try:
        # A program that keeps running to serve the clipboard must not hold our streams open.
        subprocess.run(
            command,
            input=text.encode("utf-8", errors="replace"),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=TIMEOUT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise OptionError(f"{command[0]} failed: {error}") from error
    return command[0]

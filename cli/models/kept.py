"""The folder of the kept prompts; `mistral_mlx.session.kept` reads and writes its files."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import OptionError

from .home import home

if TYPE_CHECKING:
    from mistral_mlx.session.kept import KeptPrompts

MAX_GB = 1_000_000


def kept_prompts(notes: Notes, limit_gb: float = MAX_GB) -> "Callable[[], KeptPrompts]":
    """Return what opens the kept prompts, at most `limit_gb` GB of 1e9 bytes; a short prompt need not open them.

    Raises OptionError if the limit is out of range.
    """
    if not 0 <= limit_gb <= MAX_GB:
        raise OptionError(f"--cache-limit is {limit_gb:g}; it must be 0 to {MAX_GB:,} GB")

    def opened() -> "KeptPrompts":
        from mistral_mlx.session.kept import KeptPrompts

        return KeptPrompts(home() / "kept-prompts", int(limit_gb * 1e9), notes.say)

    return opened

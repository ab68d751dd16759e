"""The line below the prompt: model, context, speed and sampling, as far as they fit."""

from typing import NamedTuple

from mistral_mlx.errors import counted

BAR_CELLS = 10


class Status(NamedTuple):
    model: str
    state: str = ""  # shown instead of the context
    used: int = 0  # tokens
    limit: int | None = None
    is_window: bool = False
    tokens_per_s: float | None = None
    sampling: str = ""
    n_files: int = 0  # attached to the next message
    is_unsaved: bool = False  # the last attempt to save failed
    hint: str = ""


def line(status: Status, columns: int) -> str:
    """Return the line, at most `columns` cells; parts at the right are dropped first."""
    parts = [_short(status.model), status.state or _context(status)]
    parts += [status.hint] if status.hint else []
    parts[1:1] = ["not saved"] if status.is_unsaved else []
    parts += [f"{counted(status.n_files, 'file')} attached"] if status.n_files else []
    parts += [f"{status.tokens_per_s:.1f} tok/s"] if status.tokens_per_s else []
    parts += [status.sampling] if status.sampling else []
    while len(parts) > 1 and len(" " + " · ".join(parts)) > columns:
        parts.pop()
    return (" " + " · ".join(parts))[:columns]


def _short(model: str) -> str:
    """Return the name of a model, of a path the last part."""
    is_path = model.startswith(("/", ".", "~"))
    return model.rstrip("/").rpartition("/")[2] or model if is_path else model


def _context(status: Status) -> str:
    if status.limit is None:
        return f"{status.used:,} tokens"
    share = min(1.0, status.used / status.limit)
    n_full = round(share * BAR_CELLS)
    bar = "█" * n_full + "░" * (BAR_CELLS - n_full)
    return f"{bar} {status.used:,} of {status.limit:,} tokens{' (window)' if status.is_window else ''}"

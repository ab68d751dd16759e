"""The folder of the program's own models, settings and sessions."""

import os
from pathlib import Path

import platformdirs

from mistral_mlx.errors import ModelError, shown

HOME_VARIABLE = "MISTRAL_MLX_HOME"
REMEDY = f"change that, or set {HOME_VARIABLE} to another folder"


def home() -> Path:
    """Return the folder of the program's own models and settings."""
    return Path(os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("mistral-mlx"))


def existing(path: Path) -> Path:
    """Return the path, or the first above it that exists."""
    return next((place for place in (path, *path.parents) if os.path.exists(place)), Path("/"))


def home_fault() -> str | None:
    """Return why the folder cannot be written or made, as far as can be told without trying; None if it can."""
    path = home()
    beside = existing(path)
    if beside.is_dir() and os.access(beside, os.W_OK | os.X_OK):
        return None
    why = "not writable" if beside.is_dir() else "no folder"
    return f"{_named(path)} cannot be {'written' if path.exists() else 'made'}: {_named(beside)} is {why}"


def check_home() -> None:
    """Raise ModelError if the folder is none and cannot be made. To be asked where nothing is found in it."""
    if not home().is_dir() and (fault := home_fault()):
        raise ModelError(f"{fault}; {REMEDY}")


def home_error(error: OSError) -> str | None:
    """Return what to say of an error that comes from a folder that cannot be made; None for any other error."""
    path = home().absolute()
    if path.is_dir() or not isinstance(error.filename, str):
        return None
    at = Path(error.filename).absolute()
    if not (at.is_relative_to(path) or path.is_relative_to(at)):
        return None
    return f"{home_fault() or f'{_named(path)} cannot be made: {error.strerror}'}; {REMEDY}"


def _named(path: Path) -> str:
    return shown(str(path), limit=200)

"""Registers names for model folders, and finds the folder that ``--model`` means."""

import contextlib
import json
import os
from pathlib import Path

import platformdirs

from mistral_mlx.errors import ModelError, OptionError, shown

from .folder_lock import locked

HOME_VARIABLE = "MISTRAL_MLX_HOME"
MODEL_VARIABLE = "MISTRAL_MLX_MODEL"
PULLABLE = ("demo",)  # the models that `pull` fetches


def home() -> Path:
    """Return the folder of the program's own models and settings."""
    return Path(os.environ.get(HOME_VARIABLE) or platformdirs.user_data_dir("mistral-mlx"))


def registered() -> dict[str, Path]:
    """Return the registered names and their folders."""
    try:
        names = json.loads(_file().read_text(encoding="utf-8"))
        return {name: Path(path) for name, path in names.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{shown(str(_file()), limit=200)} cannot be read ({error}); delete it and fetch the models again"
        ) from error


def model_names() -> list[str]:
    """Return the registered names for shell completion; none if they cannot be read."""
    with contextlib.suppress(ModelError):
        return sorted(registered())
    return []


def register(name: str, path: Path) -> None:
    """Register `name` for the folder `path`."""
    _file().parent.mkdir(parents=True, exist_ok=True)
    with locked(_file().parent):  # otherwise two processes that register at once lose one name
        names = {key: str(value) for key, value in (registered() | {name: path.resolve()}).items()}
        draft = _file().with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(names, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        draft.replace(_file())


def resolve(model: str | None) -> Path:
    """Return the folder of `model`, a registered name or a path; ``./name`` is always a path.

    A name takes precedence over a path. Raises OptionError if `model` is empty, ModelError if it does not exist.
    """
    if not model:
        raise OptionError(f"which model? Give --model with a folder or a name, or set {MODEL_VARIABLE}")
    path = located(model)
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"{shown(model, limit=200)} is a file, but a model is a folder; convert a GGUF file first")
    if os.sep in model:
        raise ModelError(f"no such model directory: {shown(model, limit=200)}")
    known = ", ".join(sorted(registered())) or f"none; 'mistral-mlx pull {PULLABLE[0]}' fetches one"
    raise ModelError(
        f"no such model directory or registered name: {shown(model, limit=200)} (registered: {shown(known)})"
    )


def located(model: str) -> Path:
    """Return the path of `model`, a registered name or a path; the path need not exist.

    Raises ModelError for a registered name whose folder was deleted.
    """
    if not is_name(model):
        return Path(model).expanduser()
    names = registered()
    if not names[model].is_dir():
        remedy = f"fetch it again with 'mistral-mlx pull {model}'" if model in PULLABLE else "give the new path"
        raise ModelError(f"the folder of {shown(model)}, {shown(str(names[model]), limit=200)}, is gone; {remedy}")
    return names[model]


def is_name(model: str) -> bool:
    """Return whether `model` is a registered name. Every text with a slash is a path."""
    return os.sep not in model and model in registered()


def first_time(remark: str) -> bool:
    """Return True the first time it is called for `remark`; a marker file remembers that."""
    mark = home() / f"said-{remark}"
    if mark.exists():
        return False
    with contextlib.suppress(OSError):  # better a remark twice than never
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return True


def _file() -> Path:
    return home() / "models.json"

"""Names for model folders: which are registered, and what a ``--model`` means; knows nothing of what is in them."""

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
    """Return the folder of this program's own models and settings."""
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
    """Return the registered names, for a shell to complete; none where they cannot be read."""
    with contextlib.suppress(ModelError):
        return sorted(registered())
    return []


def register(name: str, path: Path) -> None:
    """Make `name` mean the folder `path`, from now on."""
    _file().parent.mkdir(parents=True, exist_ok=True)
    with locked(_file().parent):  # or two that register at once lose one name
        names = {key: str(value) for key, value in (registered() | {name: path.resolve()}).items()}
        draft = _file().with_suffix(f".{os.getpid()}")
        draft.write_text(json.dumps(names, indent=2, sort_keys=True) + "\n", encoding="utf-8")
        draft.replace(_file())


def resolve(model: str | None) -> Path:
    """Return the folder that `model`, a registered name or a path, means. A name wins; ``./name`` is always a path.

    Raises OptionError if none is given, ModelError if there is no such name or folder.
    """
    if not model:
        raise OptionError(f"which model? Give --model with a folder or a name, or set {MODEL_VARIABLE}")
    path = located(model)
    if path.is_dir():
        return path
    if path.is_file():
        raise ModelError(f"{shown(model, limit=200)} is a file, and a model is a folder; convert a GGUF file first")
    if os.sep in model:
        raise ModelError(f"no such model directory: {shown(model, limit=200)}")
    known = ", ".join(sorted(registered())) or f"none; 'mistral-mlx pull {PULLABLE[0]}' fetches one"
    raise ModelError(
        f"no such model directory or registered name: {shown(model, limit=200)} (registered: {shown(known)})"
    )


def located(model: str) -> Path:
    """Return the path that `model`, a registered name or a path, means, whether it exists or not.

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
    """Whether `model` is a registered name. Every text with a slash is a path."""
    return os.sep not in model and model in registered()


def first_time(remark: str) -> bool:
    """Whether the user has not been told of `remark` yet, who from now on has been."""
    mark = home() / f"said-{remark}"
    if mark.exists():
        return False
    with contextlib.suppress(OSError):  # a remark too many is better than none
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
    return True


def _file() -> Path:
    return home() / "models.json"

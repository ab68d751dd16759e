"""Registers names for model folders, and finds the folder that ``--model`` means; always on this disk."""

import contextlib
import json
import os
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from mistral_mlx.errors import ModelError, OptionError, shown

from . import names
from .folder_lock import locked
from .home import check_home, home, home_fault
from .small_file import is_gguf, small_text

MODEL_VARIABLE = "MISTRAL_MLX_MODEL"
PULLABLE = ("demo",)  # the models that `pull` fetches
MAX_LISTED = 10  # names in a message


def registered() -> dict[str, Path]:
    """Return the registered names and their folders."""
    try:
        known = json.loads(small_text(_file(), follow=True) or "{}")
        return {name: Path(path) for name, path in known.items()}
    except (ValueError, AttributeError, TypeError) as error:
        raise ModelError(
            f"{shown(str(_file()), limit=200)} cannot be read ({error}); delete it and fetch the models again"
        ) from error


def model_names() -> list[str]:
    """Return the registered names for shell completion; none if they cannot be read."""
    with contextlib.suppress(ModelError):
        return sorted(registered())
    return []


def register(name: str, path: Path, *, takes_over: bool = True) -> None:
    """Register `name` for the folder `path`.

    Raises OptionError if the name is none or, unless it `takes_over`, is that of another folder.
    """
    names.check_name(name)
    with _changing() as known:
        if not takes_over:
            _check_free(name, path, known)
        known[name] = path.resolve()


def check_free(name: str, path: Path) -> None:
    """Raise OptionError unless `path` can be registered as `name`."""
    _check_free(names.check_name(name), path, registered())


def unregister(name: str) -> Path:
    """Forget the name, and return the folder, which stays. Raises OptionError if it is not registered."""
    with _changing() as known:
        _check_known(name, known)
        return known.pop(name)


def rename(old: str, new: str) -> None:
    """Register the folder of `old` under the name `new` instead. Raises OptionError."""
    names.check_name(new)
    with _changing() as known:
        _check_known(old, known)
        _check_free(new, known[old], known)
        known[new] = known.pop(old)


def only_registered() -> str:
    """Return the name of the only registered model.

    Raises OptionError if there is none, or several; ModelError if there can be none.
    """
    known = sorted(registered())
    if len(known) == 1:
        return known[0]
    if known:
        listed = ", ".join(known[:MAX_LISTED]) + (f" and {len(known) - MAX_LISTED} more" * (len(known) > MAX_LISTED))
        raise OptionError(f"which model? registered: {shown(listed, limit=400)}; give --model, or set {MODEL_VARIABLE}")
    check_home()
    raise OptionError(
        f"which model? None is registered: 'mistral-mlx pull {PULLABLE[0]}' or 'pull ORG/REPO' fetches one, and "
        "--model also takes a folder"
    )


def resolve(model: str | None) -> Path:
    """Return the folder of a model that runs: of a registered name, a path, or a name that another program knows.

    They are looked for in this order; ``./name`` is always a path, and no name is that of the only registered model.
    Raises OptionError if there are several, ModelError if no such model is on this disk, or it must be converted first.
    """
    model = model or only_registered()
    path = _known(model)
    if path is None:
        from .found import to_run

        found = to_run(model)
        return found.path if found else _refuse(model)
    if path.is_file() or is_gguf(path):
        what = "is a file, but a model is a folder" if path.is_file() else "holds a GGUF file, which does not run"
        text = shown(model, limit=200)
        raise ModelError(f"{text} {what}; convert a GGUF file first: mistral-mlx convert {text}")
    return path


def located(model: str) -> Path:
    """Return the path of the model `model`, a folder or a GGUF file, which need not run; else as `resolve`."""
    path = _known(model)
    if path is None:
        from .found import find

        found = find(model)
        return found.path if found else _refuse(model)
    return path


def is_path(model: str) -> bool:
    """Return whether `model` means a path, and not a name."""
    return names.is_path(model) or (model not in registered() and os.path.exists(model))


def _known(model: str) -> Path | None:
    """Return the path of a registered name, or the path that `model` itself is; None if it is neither.

    Raises ModelError if the folder or file is gone.
    """
    known = {} if names.is_path(model) else registered()
    path = known.get(model) or Path(os.path.expanduser(model))
    if os.path.exists(path):
        return path
    if model in known:
        fetched = f"fetch it again with 'mistral-mlx pull {shown(model)}'"
        moved = f"name the new one: mistral-mlx models add {shlex.quote(shown(model))} DIR"
        remedy = fetched if model in PULLABLE or os.sep in model else moved
        raise ModelError(
            f"the folder of {shown(model)}, {shown(str(path), limit=200)}, is gone; {remedy} (or forget the name: "
            f"mistral-mlx models remove {shown(model)})"
        )
    if names.is_path(model):
        what = "file" if model.endswith(".gguf") else "model directory"
        raise ModelError(f"no such {what}: {shown(model, limit=200)}")
    return None


def _refuse(model: str) -> NoReturn:
    from .found import not_found

    known, (name, at, _) = registered(), model.partition("@")
    if at and name in known:
        raise ModelError(
            f"{shown(model, limit=200)} is not on this disk, but {shown(name)} is registered, at a commit of its own; "
            f"give {shown(name)}, or fetch the other one: mistral-mlx pull {shown(model, limit=200)} NAME"
        )
    listed = ", ".join(sorted(known)) or f"none; 'mistral-mlx pull {PULLABLE[0]}' fetches one"
    fault = f"; {home_fault()}" if not known and not home().is_dir() and home_fault() else ""
    raise ModelError(not_found(model, listed) + fault)


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


@contextlib.contextmanager
def _changing() -> Iterator[dict[str, Path]]:
    """Yield the registered names, and write them at the end."""
    from mistral_mlx.files.whole import new_file  # which a start of the program need not wait for

    _file().parent.mkdir(parents=True, exist_ok=True)
    with locked(_file().parent):  # otherwise two processes that register at once lose one name
        known = registered()
        yield known
        draft = _file().with_suffix(f".{os.getpid()}")
        plain = {name: str(path) for name, path in known.items()}
        draft.unlink(missing_ok=True)
        with new_file(draft) as file:
            file.write((json.dumps(plain, indent=2, sort_keys=True) + "\n").encode())
        draft.replace(_file())


def _check_known(name: str, known: Mapping[str, Path]) -> None:
    if not known:
        check_home()
    if name not in known:
        listed = ", ".join(sorted(known)) or "none"
        raise OptionError(f"no model is registered as {shown(name)}; registered: {shown(listed, limit=400)}")


def _check_free(name: str, path: Path, known: Mapping[str, Path]) -> None:
    if name in known and known[name] != path.resolve() and known[name].exists():
        raise OptionError(
            f"{shown(name)} is the name of {shown(str(known[name]), limit=200)}; take another one, or free it first: "
            f"mistral-mlx models remove {shown(name)}"
        )

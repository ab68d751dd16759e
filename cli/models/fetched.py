"""Where a fetched model lies, and the folder in which it is gathered before.

``models/NAME`` in the program's folder. The files are gathered in ``.NAME.partial`` next to it, which takes that place
when it is whole. An older state is ``.NAME.old`` for the moment between two renames.
"""

import shutil
from collections.abc import Callable, Container, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.errors import ConversionError, OptionError, shown
from mistral_mlx.files.whole import sync_folder

from .folder_lock import locked
from .home import HOME_VARIABLE, home
from .hub import settings
from .hub.record import pulled_from
from .hub.repo_id import RepoId
from .registry import check_free, registered


def place_of(name: str, repo: RepoId) -> Path:
    """Return the folder for the model: the one that has its name already, or a new one."""
    models = home() / "models"
    known = registered().get(name)
    if known is not None and known.parent == models.resolve() and pulled_from(known) == str(repo):
        return known
    return models / name.replace("/", "--")


def check_place(place: Path, name: str, repo: RepoId) -> None:
    """Raise OptionError if something else has the name or the folder."""
    if not is_of(name, repo):
        check_free(name, place)
    names = [other for other, path in registered().items() if path == place.resolve() and other != name]
    if names:
        raise OptionError(f"{shown(str(place), limit=200)} is the folder of {shown(names[0])}; give another name")
    if place.exists() and pulled_from(place) != str(repo):
        raise OptionError(f"{shown(str(place), limit=200)} holds something else; give another name")


def is_of(name: str, repo: RepoId) -> bool:
    """Return whether the name is registered for a commit of the same model, or for a folder that is gone."""
    path = registered().get(name)
    if path is None or not path.is_dir():
        return path is not None
    snapshot = settings.cache() / f"models--{repo.organisation}--{repo.repository}" / "snapshots"
    return path.is_relative_to(snapshot.resolve()) or pulled_from(path) == str(repo)


@contextmanager
def working_folder(place: Path, wait: Callable[[], None]) -> Iterator[Path]:
    """Give the folder in which the files for `place` are gathered; no other process uses it meanwhile."""
    folder = partial(place)
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            try:
                inode = stack.enter_context(locked(folder, wait))
                is_there = folder.stat().st_ino == inode
            except FileNotFoundError:
                is_there = False
            if is_there:  # another process may have put it at its place
                _tidy(place)
                yield folder
                return


def partial(place: Path) -> Path:
    """Return the folder in which the files for `place` are gathered."""
    return place.with_name(f".{place.name}.partial")


def _old(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")


def _tidy(place: Path) -> None:
    """Put back, or remove, what a process that was killed between two renames has left."""
    if place.exists():
        shutil.rmtree(_old(place), ignore_errors=True)
    elif _old(place).exists():
        _old(place).rename(place)


def publish(folder: Path, place: Path) -> None:
    """Put what was gathered at its place, instead of an older state."""
    sync_folder(folder)
    if place.exists():
        place.rename(_old(place))
    folder.rename(place)
    sync_folder(place.parent)
    shutil.rmtree(_old(place), ignore_errors=True)


def check_disk(needed: int, free: int, *, spare: int = 0) -> None:
    """Raise ConversionError unless `needed` bytes are free on the disk, and `spare` bytes beside them."""
    if needed + spare > free:
        and_spare = f", {gigabytes(spare)} of them to spare," if spare else ""
        raise ConversionError(
            f"{gigabytes(needed + spare)} are needed{and_spare} and {gigabytes(free)} are free on the disk; make room, "
            f"or set {HOME_VARIABLE} to a folder on another disk"
        )


def nameless(known: Container[str]) -> list[Path]:
    """Return the folders of models that are not in `known`, and those of downloads that did not end."""
    folders = (home() / "models").resolve()
    found = sorted(folders.iterdir()) if folders.is_dir() else []
    return [
        path
        for path in found
        if path.is_dir() and str(path) not in known and (not path.name.startswith(".") or path.suffix == ".partial")
    ]


def nbytes_of(folder: Path) -> int:
    """Return the bytes of the files in `folder`."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.is_file())

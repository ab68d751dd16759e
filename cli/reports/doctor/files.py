"""The checks of ``doctor`` on the program's own folder, the disk below it, and the config file."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from mistral_mlx.cli.models.home import REMEDY, existing, home, home_fault
from mistral_mlx.cli.models.registry import MODEL_VARIABLE, located
from mistral_mlx.cli.options.config_file import read_config
from mistral_mlx.cli.options.sources import Option, config_path
from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.errors import ModelError, counted, shown

from .findings import Findings

FOLDERS = ("models", "sessions", "kept-prompts", "templates")  # of the home
MAX_ENTRIES = 20_000  # of a folder that are counted
LITTLE_BYTES = 1_000_000_000


class Size(NamedTuple):
    """What a folder holds; there is more if it is not the `whole`."""

    nbytes: int
    files: int
    whole: bool


def own_folder(found: Findings) -> None:
    """Say where the program keeps its files, whether it can, and what they take."""
    path, fault = home(), home_fault()
    sizes = {name: size for name in FOLDERS if (size := size_of(path / name)) is not None}
    found.facts = {"path": str(path), "exists": path.is_dir(), "writable": fault is None}
    found.facts |= {"folders": {name: size._asdict() for name, size in sizes.items()}}
    if fault is not None:
        found.fault(fault, REMEDY)
    elif not path.is_dir():
        found.ok(f"{_named(path)} does not exist yet; it is made when it is needed")
    else:
        found.ok(f"{_named(path)}: {', '.join(map(_told, sizes.items())) or 'nothing is there yet'}")


def disk(found: Findings) -> None:
    """Say how much space is left below the program's own folder."""
    usage = shutil.disk_usage(existing(home()))
    found.facts = {"total": usage.total, "free": usage.free}
    say = found.note if usage.free < LITTLE_BYTES else found.ok
    say(f"{gigabytes(usage.free)} of {gigabytes(usage.total)} are free")


def config(found: Findings, known: Mapping[str, list[Option]]) -> None:
    """Read the config file."""
    path = config_path()
    found.facts = {"path": str(path), "exists": path.exists(), "error": None}
    config = read_config(path, known)
    if config.faults:
        found.facts["error"] = config.faults[0].text
        for fault in config.faults:
            found.fault(fault.text, "correct it: mistral-mlx config edit")
        return
    _default_model(found, config.tables[""].get("model"))
    found.ok(f"{_named(path)}" + ("" if path.exists() else " does not exist, so all options have their defaults"))


def _default_model(found: Findings, in_file: object) -> None:
    """Say whether the model that is taken without --model is on this disk."""
    name = os.environ.get(MODEL_VARIABLE) or in_file
    found.facts["model"] = name if isinstance(name, str) else None
    if not isinstance(name, str):
        return
    try:
        located(name)
    except ModelError as error:
        source = MODEL_VARIABLE if os.environ.get(MODEL_VARIABLE) else "the config file"
        found.fault(f"model is {shown(name)} in {source}: {error}", "name another one there")


def size_of(folder: Path) -> Size | None:
    """Return what a folder holds, of MAX_ENTRIES entries at most and without following links; None if it is none."""
    if not folder.is_dir():
        return None
    nbytes = n_files = n_entries = 0
    folders, whole = [str(folder)], True
    while folders and n_entries < MAX_ENTRIES:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    n_entries += 1
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        nbytes, n_files = nbytes + entry.stat(follow_symlinks=False).st_size, n_files + 1
                    if n_entries >= MAX_ENTRIES:
                        return Size(nbytes, n_files, whole=False)
        except OSError:  # it may not be read, or is gone by now
            whole = False
    return Size(nbytes, n_files, whole)


def _told(item: tuple[str, Size]) -> str:
    name, size = item
    least = "" if size.whole else "at least "
    return f"{name} {least}{gigabytes(size.nbytes)} in {counted(size.files, 'file')}"


def _named(path: Path) -> str:
    return shown(str(path), limit=200)

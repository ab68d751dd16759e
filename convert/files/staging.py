"""A folder or a file that is there as a whole or not at all; knows nothing of what is in it.

The work goes into a hidden sibling ``.NAME.partial-PID`` and is renamed when whole. A folder that is to be replaced
steps aside as ``.NAME.old-PID`` for the moment between two renames. A killed process leaves such siblings behind; the
next conversion to the same target puts them right.
"""

import errno
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mistral_mlx.errors import ConversionError, shown

RESERVE_NBYTES = 4 * 1024 * 1024  # headers, index, config and the file system's own needs


def check_target(target: str | os.PathLike[str], source: Path, *, force: bool) -> Path:
    """Return the absolute path of `target` after making sure that a folder can be put there.

    Raises ConversionError if something is there (with `force`: something other than a model folder), if it lies in
    `source` or around it, or if its parent folder is missing or read-only.
    """
    path = _check_place(target, source)
    _check_folder(path, force=force)
    return path


def check_file_target(target: str | os.PathLike[str], source: Path, *, force: bool) -> Path:
    """Return the absolute path of `target` after making sure that a GGUF file can be put there; see `check_target`."""
    path = _check_place(target, source)
    _check_file(path, force=force)
    return path


def _check_place(target: str | os.PathLike[str], source: Path) -> Path:
    path = Path(os.path.abspath(Path(target).expanduser()))
    real, origin = path.resolve(), source.expanduser().resolve()
    if real == origin or (origin.is_dir() and real.is_relative_to(origin)) or origin.is_relative_to(real):
        raise ConversionError(
            f"the target {shown(str(path))} and the source lie inside one another; name another target"
        )
    if not path.parent.is_dir():
        raise ConversionError(f"the folder {shown(str(path.parent))} does not exist; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConversionError(f"the folder {shown(str(path.parent))} cannot be written to; name another target")
    return path


def check_space(needed: int, free: int, folder: Path) -> None:
    """Raise ConversionError if `needed` bytes do not fit."""
    if needed > free:
        raise ConversionError(
            f"{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free in {shown(str(folder))}; "
            "make room or name another target"
        )


@contextmanager
def staged(target: Path, *, force: bool) -> Iterator[Path]:
    """Give an empty folder that becomes `target` at the end; with `force`, in place of a model folder there now.

    Whatever goes wrong, the folder is removed and the old target is where it was. Raises ConversionError for what the
    operating system refuses; anything else passes through.
    """
    old = _sibling(target, "old")
    with _undone(target) as partial:
        _check_folder(target, force=force)  # what a killed process had set aside may be back
        partial.mkdir()
        yield partial
        _sync(partial)
        _check_folder(target, force=force)  # nor may anything that came meanwhile be lost
        if target.exists():
            target.rename(old)
        partial.rename(target)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def staged_file(target: Path, *, force: bool) -> Iterator[Path]:
    """Give the path of a file to be made that becomes `target` at the end; as `staged` in everything else."""
    with _undone(target) as partial:
        yield partial
        _check_file(target, force=force)  # nothing that came meanwhile may be lost
        partial.replace(target)


@contextmanager
def _undone(target: Path) -> Iterator[Path]:
    """Give the path to work at, and remove what is there if anything goes wrong."""
    try:
        _tidy(target)
        yield _sibling(target, "partial")
    except BaseException as problem:
        with suppress(OSError):
            _tidy(target)
        if isinstance(problem, OSError):
            raise ConversionError(f"{_reason(problem)}; {shown(str(target))} is as it was before") from problem
        raise
    with suppress(OSError):  # the target is whole; this only makes its name outlast a power cut
        _sync(target.parent)


def _check_folder(path: Path, *, force: bool) -> None:
    _check_replaceable(path, _is_model_folder, "a plain model folder", force=force)


def _check_file(path: Path, *, force: bool) -> None:
    _check_replaceable(path, _is_gguf, "a GGUF file", force=force)


def _check_replaceable(path: Path, is_ours: Callable[[Path], bool], what: str, *, force: bool) -> None:
    if not os.path.lexists(path):
        return
    if not force:
        raise ConversionError(f"the target {shown(str(path))} exists; name another one, or replace it with --force")
    if path.is_symlink() or not is_ours(path):
        raise ConversionError(f"{shown(str(path))} is not {what} and is never replaced; remove it yourself")


def _is_model_folder(path: Path) -> bool:
    return (path / "config.json").is_file() and not any(p.is_dir() for p in path.iterdir())


def _is_gguf(path: Path) -> bool:
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"GGUF"


def _tidy(target: Path) -> None:
    """Remove what this process or one that is gone has left for `target`; a target that stepped aside comes back."""
    for path in target.parent.iterdir():
        match = re.fullmatch(re.escape(f".{target.name}.") + r"(partial|old)-(\d+)", path.name, re.ASCII)
        if match is None or _is_alive(int(match[2])):
            continue
        if match[1] == "old" and not target.exists():
            path.rename(target)
        elif path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    if pid == os.getpid():
        return False  # numbers are given out again, in containers the same ones every time
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _sibling(target: Path, what: str) -> Path:
    return target.with_name(f".{target.name}.{what}-{os.getpid()}")


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _reason(problem: OSError) -> str:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return f"the conversion stopped ({problem.strerror or problem})"

"""Makes a folder or a file that appears whole at its place, or not at all.

The work is done in a hidden folder next to the target, ``.NAME.partial-TOKEN``. It holds:

    lock   locked (flock) as long as the process that works here lives
    new    the new target; it is renamed to the target when it is whole
    old    the target that is replaced, for the moment between two renames

A killed process leaves this folder behind. Nobody holds its lock any more, so the next conversion to the same target
puts ``old`` back if the target is missing, and removes the rest. A process number would not tell: a process in another
container, which shares the disk, has a number that means nothing here.
"""

import errno
import fcntl
import os
import re
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from mistral_mlx.errors import ConversionError, ModelError, shown
from mistral_mlx.files.folder import read_json
from mistral_mlx.files.whole import sync_folder

RESERVE_NBYTES = 4 * 1024 * 1024  # headers, index, config and the file system's own needs
# What a folder may hold that is replaced: the files that this program, mlx-lm and the hubs write.
MODEL_FILES = re.compile(
    r".*\.(safetensors|json|jinja|model)|tokenizer.*|(merges|vocab)\.txt|(README|LICENSE|NOTICE)[\w.-]*|\.gitattributes",
    re.DOTALL,
)
LOCK, NEW, OLD = "lock", "new", "old"  # in a working folder


def check_target(target: str | os.PathLike[str], source: Path, *, overwrite: bool) -> Path:
    """Return the absolute path of `target` after making sure that a folder can be put there.

    Raises ConversionError if the target exists (with `overwrite`: if it is something other than a model folder), if it
    lies in `source` or around it, or if its parent folder is missing or read-only.
    """
    path = _check_place(target, source)
    _check_folder(path, overwrite=overwrite)
    return path


def check_file_target(target: str | os.PathLike[str], source: Path, *, overwrite: bool) -> Path:
    """Return the absolute path of `target` after making sure that a GGUF file can be put there; see `check_target`."""
    path = _check_place(target, source)
    _check_file(path, overwrite=overwrite)
    return path


def _check_place(target: str | os.PathLike[str], source: Path) -> Path:
    path = Path(os.path.abspath(Path(target).expanduser()))
    real, origin = path.resolve(), source.expanduser().resolve()
    if real == origin or (origin.is_dir() and real.is_relative_to(origin)) or origin.is_relative_to(real):
        raise ConversionError(
            f"the target {shown(str(path), limit=200)} and the source lie inside one another; name another target"
        )
    if not path.parent.is_dir():
        raise ConversionError(f"the folder {shown(str(path.parent), limit=200)} does not exist; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ConversionError(
            f"the folder {shown(str(path.parent), limit=200)} cannot be written to; name another target"
        )
    return path


def check_space(needed: int, free: int, folder: Path) -> None:
    """Raise ConversionError if `needed` bytes do not fit."""
    if needed > free:
        raise ConversionError(
            f"{needed / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free in {shown(str(folder))}; "
            "make room or name another target"
        )


@contextmanager
def staged(target: Path, *, overwrite: bool, on_written: Callable[[], object] | None = None) -> Iterator[Path]:
    """Give an empty folder that becomes `target` at the end; with `overwrite`, it replaces a model folder.

    `on_written` is called as soon as the target is in place; it must not raise. Whatever goes wrong, the new folder is
    removed and the old target is where it was. Raises ConversionError for what the operating system refuses; anything
    else passes through.
    """
    with _working(target) as work:
        _check_folder(target, overwrite=overwrite)  # a target that a killed process had set aside may be back
        new = work / NEW
        new.mkdir()
        yield new
        sync_folder(new)
        _check_folder(target, overwrite=overwrite)  # a target that appeared meanwhile must not be lost
        if target.exists():
            target.rename(work / OLD)
        new.rename(target)
        if on_written is not None:
            on_written()


@contextmanager
def staged_file(target: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give the path of a file to be made that becomes `target` at the end; as `staged` in everything else."""
    with _working(target) as work:
        yield work / NEW
        _check_file(target, overwrite=overwrite)  # a target that appeared meanwhile must not be lost
        (work / NEW).replace(target)


@contextmanager
def _working(target: Path) -> Iterator[Path]:
    """Give a working folder that is locked, and remove it at the end; put back what is in OLD if anything fails."""
    try:
        _tidy(target)
        work, lock = _make_work(target)
        try:
            yield work
        finally:
            _clear(work, target)
            os.close(lock)  # last: a folder that is not locked belongs to whoever finds it
    except BaseException as problem:
        with suppress(OSError):
            _tidy(target)  # an interrupt may come before a new folder is locked, or while one is removed
        if isinstance(problem, OSError):
            raise ConversionError(f"{_reason(problem)}; {shown(str(target))} is as it was before") from problem
        raise
    with suppress(OSError):  # the target is whole; this only makes its name outlast a power cut
        sync_folder(target.parent)


def _check_folder(path: Path, *, overwrite: bool) -> None:
    _check_replaceable(path, _why_no_model_folder, overwrite=overwrite)


def _check_file(path: Path, *, overwrite: bool) -> None:
    _check_replaceable(path, _why_no_gguf, overwrite=overwrite)


def _check_replaceable(path: Path, why_not: Callable[[Path], str | None], *, overwrite: bool) -> None:
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise ConversionError(
            f"the target {shown(str(path), limit=200)} exists; name another one, or replace it with --overwrite"
        )
    if reason := why_not(path):
        raise ConversionError(f"{shown(str(path), limit=200)} {reason}, so it is never replaced; remove it yourself")


def _why_no_model_folder(path: Path) -> str | None:
    """Return what makes `path` something else than a folder with a model and nothing else; None if it is one."""
    if path.is_symlink() or not path.is_dir():
        return "is not a model folder"
    found = sorted(path.iterdir())
    for entry in found:
        if not MODEL_FILES.fullmatch(entry.name) or not entry.is_file():
            return f"holds {shown(entry.name)}, which no model folder has"
    if not _names_model_type(path / "config.json"):
        return "is not a model folder (it has no config.json with a model_type)"
    if not any(entry.suffix == ".safetensors" for entry in found):
        return "is not a model folder (it holds no *.safetensors)"
    return None


def _names_model_type(path: Path) -> bool:
    try:
        return isinstance(read_json(path).get("model_type"), str)
    except (ModelError, OSError):
        return False


def _why_no_gguf(path: Path) -> str | None:
    if path.is_symlink() or not path.is_file():
        return "is not a GGUF file"
    with path.open("rb") as file:
        return None if file.read(4) == b"GGUF" else "is not a GGUF file"


def _make_work(target: Path) -> tuple[Path, int]:
    """Return a new working folder for `target`, and the descriptor of its lock."""
    while True:
        work = target.with_name(f".{target.name}.partial-{secrets.token_hex(4)}")
        work.mkdir()
        # Before it is locked, another process may take the folder for a leftover and remove it.
        with suppress(FileNotFoundError, BlockingIOError):
            return work, _lock(work, unsupported_is_fine=True)


def _tidy(target: Path) -> None:
    """Clear the working folders for `target` whose process is gone."""
    pattern = re.compile(re.escape(f".{target.name}.partial-") + "[0-9a-f]+")
    for path in target.parent.iterdir():
        if pattern.fullmatch(path.name):
            with suppress(OSError):  # somebody works there, or it is no such folder
                lock = _lock(path)
                _clear(path, target)
                os.close(lock)


def _clear(work: Path, target: Path) -> None:
    """Remove a working folder that is locked; a target that was set aside in it comes back if there is none."""
    with suppress(OSError):
        if not os.path.lexists(target):
            (work / OLD).rename(target)
    shutil.rmtree(work, ignore_errors=True)


def _lock(work: Path, *, unsupported_is_fine: bool = False) -> int:
    """Lock a working folder and return the descriptor that holds the lock; the end of a process lets go of it, too.

    Raises BlockingIOError if another process has locked it, FileNotFoundError if the folder was removed meanwhile.
    """
    path = work / LOCK
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if isinstance(error, BlockingIOError) or not unsupported_is_fine:
                raise
        if not os.path.samestat(os.fstat(descriptor), path.stat()):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _reason(problem: OSError) -> str:
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return "the disk is full"
    return f"the conversion stopped ({problem.strerror or problem})"

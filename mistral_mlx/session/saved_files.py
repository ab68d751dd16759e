"""The files of saved sessions as files: a session and its cache are renamed and removed, and old caches make room."""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from mistral_mlx.errors import SessionError, shown
from mistral_mlx.files.whole import is_stale_partial, sync_folder

from .saved_document import SUFFIX

_CACHE = re.compile(rf"(.+{re.escape(SUFFIX)})\.([0-9a-f]{{16}})\.safetensors", re.ASCII | re.DOTALL)


def remove(path: Path) -> None:
    """Remove the session in the file `path` and its cache. Raises SessionError if it cannot be."""
    try:
        path.unlink()
    except OSError as error:
        raise SessionError(f"{shown(str(path), limit=200)} cannot be removed: {error.strerror or error}") from error
    tidy(path, keep=None)


def rename(path: Path, new: Path) -> None:
    """Give the session in the file `path` the name of the file `new`, which does not exist; its cache goes along.

    Raises SessionError if that cannot be done. A process that is killed in between leaves one of the two whole.
    """
    try:
        for cache, cache_id in _caches_of(path):
            with suppress(OSError):  # without its cache a session is read again
                os.link(cache, new.with_name(f"{new.name}.{cache_id}.safetensors"))
        path.rename(new)
        sync_folder(new.parent)
    except OSError as error:
        tidy(new, keep=None)
        raise SessionError(f"{shown(str(path), limit=200)} cannot be renamed: {error.strerror or error}") from error
    tidy(path, keep=None)


def remove_caches(path: Path) -> int:
    """Remove the cache of the session in the file `path`, whose text stays, and return how many bytes it had.

    Raises OSError if it cannot be removed.
    """
    nbytes = 0
    for cache, _ in _caches_of(path):
        nbytes += cache.stat().st_size
        cache.unlink()
    return nbytes


def make_room(folder: Path, limit: int, keep: Path) -> None:
    """Remove the oldest caches in `folder` until all together have `limit` bytes; that of the session `keep` stays."""
    found = list[tuple[float, int, Path]]()
    for cache in folder.glob(f"*{SUFFIX}.*.safetensors"):
        with suppress(OSError):  # another program may remove it meanwhile
            if _CACHE.fullmatch(cache.name):
                found.append(((status := cache.stat()).st_mtime, status.st_size, cache))
    total = sum(nbytes for _, nbytes, _ in found)
    kept = {cache for cache, _ in _caches_of(keep)}
    for _, nbytes, cache in sorted(file for file in found if file[2] not in kept):
        if total <= limit:
            return
        with suppress(OSError):
            cache.unlink()
            total -= nbytes


def tidy(path: Path, *, keep: str | None) -> None:
    """Remove the caches of `path` except that with the id `keep`, and partial files of killed processes."""
    with suppress(OSError):
        for cache, cache_id in _caches_of(path):
            if cache_id != keep:
                cache.unlink()
        for other in path.parent.iterdir():
            if is_stale_partial(other, path.name):
                other.unlink()


def _caches_of(path: Path) -> Iterator[tuple[Path, str]]:
    """Yield the caches of the session in the file `path`, and their ids."""
    for other in list(path.parent.iterdir()):
        match = _CACHE.fullmatch(other.name)
        if match and match[1] == path.name:
            yield other, match[2]

"""Kept prompts: the cache of a beginning that comes again is on the disk, and the next process takes it up.

Knows ids and caches, no text. One file for each beginning in a folder; that which was used longest ago goes first. A
kept prompt only saves time: whatever is wrong with the folder or a file is said by `say`, and is no error.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mistral_mlx.errors import SessionError, shown
from mistral_mlx.files.whole import is_stale_partial
from mistral_mlx.generation.limits import check_prompt
from mistral_mlx.generation.snapshots import MIN_KEPT, n_reusable
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.cache import RollingBufferCache
from mistral_mlx.model.mistral import Mistral

from .fingerprint import model_fingerprint
from .kept_entry import KeptEntry, Owner, beginning_of, is_entry, made_by, read_entry, write_entry
from .saved_cache import saved_nbytes

PARTIALS = ".*.partial"
MAX_READ = 64  # headers that a prompt looks at
LATEST = 250_000_000_000  # a time that a file may claim, in the year 9892: dates end soon after


@dataclass(frozen=True)
class KeptInfo:
    """What a list shows of a kept prompt."""

    path: Path
    model: str  # as the user called it
    tokens: int
    nbytes: int
    used_at: float  # seconds since 1970


class KeptPrompts:
    """The kept prompts in `folder`, at most `limit` bytes together; none of them has more than half of that."""

    def __init__(self, folder: Path, limit: int, say: Callable[[str], None] = lambda remark: None) -> None:
        self.folder, self.limit, self._say = folder, limit, say
        self._known: tuple[Mistral, str] | None = None  # a model and its fingerprint

    def take_up(self, timeline: Timeline, ids: Sequence[int]) -> int:
        """Let `timeline` hold the longest beginning of `ids` that was kept, unless it holds as much already.

        Returns how many ids it took from the disk: 0 or `MIN_KEPT` at least, and never all of `ids`. Raises
        OptionError for invalid ids, ContextError if they do not fit.
        """
        check_prompt(ids, timeline.model.args)
        for entry in self._usable(timeline, ids):
            if (layers := self._read(entry, timeline.model)) is not None:
                with suppress(OSError):
                    os.utime(entry.path)
                timeline.restore(entry.ids, layers)
                return timeline.rewind(ids)
        return 0

    def keep(self, timeline: Timeline, n: int, name: str = "") -> bool:
        """Write the first `n` ids of `timeline` and their cache, and return whether that was done.

        It is not if they are fewer than `MIN_KEPT`, too large, if the timeline cannot go back to them, or if a part of
        the cache is in another process.
        `name` is what the user calls the model.
        """
        layers = _state(timeline, n) if n >= MIN_KEPT and timeline.model.is_whole else None
        if layers is None or 2 * saved_nbytes(layers) > self.limit:
            return False
        ids, owner = timeline.ids[:n], self._owner(timeline.model)

        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._remove_partials()
            served = self._served_by(ids, layers, owner)
            path = write_entry(self.folder, owner, name, ids, layers, lambda n: self._make_room(n, served))
            for other in served - {path}:
                other.unlink(missing_ok=True)
        except FileNotFoundError:  # another process has removed all kept prompts meanwhile
            return False
        except OSError as error:
            where = shown(str(self.folder), limit=200)
            self._say(f"the beginning of this prompt cannot be kept in {where}: {error.strerror or error}")
            return False
        return True

    def found(self) -> list[KeptInfo]:
        """Return the kept prompts, the last used first; a damaged one is said and left out.

        Raises OSError if the folder cannot be read.
        """
        found = list[KeptInfo]()
        for path, status in self._files(strict=True):
            try:
                entry = read_entry(path)
            except SessionError as error:
                self._say(f"{error}; 'mistral-mlx cache clear' removes it")
            else:
                found.append(KeptInfo(path, entry.name, len(entry.ids), status.st_size, min(status.st_mtime, LATEST)))
        return found[::-1]

    def clear(self) -> tuple[int, int]:
        """Remove all kept prompts; return how many there were, and their bytes. Raises OSError if one stays."""
        files = self._files(strict=True)
        for path in (*(path for path, _ in files), *self.folder.glob(PARTIALS)):
            path.unlink(missing_ok=True)
        return len(files), sum(status.st_size for _, status in files)

    def _usable(self, timeline: Timeline, ids: Sequence[int]) -> list[KeptEntry]:
        """Return the entries that `ids` may go on from, the best first."""
        if (
            not timeline.model.is_whole
            or len(ids) <= MIN_KEPT
            or timeline.shares_layers
            or timeline.position != len(timeline.ids)
        ):
            return []
        enough = MIN_KEPT + n_reusable(timeline.ids, timeline.layers, ids)
        found = list[tuple[int, int, KeptEntry]]()
        for entry in self._beginning_like(ids, timeline.model):
            try:
                n = n_reusable(entry.ids, entry.layers(timeline.model.args), ids[:-1])
            except SessionError:
                self._drop(entry.path)
            else:
                found += [(n, -len(entry.ids), entry)] if n >= enough else []
        return [entry for *_, entry in sorted(found, key=lambda row: row[:2], reverse=True)]

    def _beginning_like(self, ids: Sequence[int], model: Mistral) -> list[KeptEntry]:
        """Return the entries of `model` that have the first `MIN_KEPT` of `ids`, the last used first."""
        begins = beginning_of(ids)
        paths = [path for path, _ in self._files() if path.name.startswith(begins)]
        entries = [entry for path in paths[: -MAX_READ - 1 : -1] if (entry := self._header(path))]
        return [entry for entry in entries if entry.owner == self._owner(model)]

    def _header(self, path: Path) -> KeptEntry | None:
        try:
            return read_entry(path)
        except SessionError:
            self._drop(path)
            return None

    def _read(self, entry: KeptEntry, model: Mistral) -> list[RollingBufferCache] | None:
        try:
            return entry.read(model.args)
        except SessionError:
            self._drop(entry.path)
            return None

    def _drop(self, path: Path) -> None:
        """Remove a damaged file, and say so, unless another process has removed it."""
        if not path.exists():
            return
        try:
            path.unlink()
        except OSError as error:
            self._say(f"the kept prompt {shown(str(path), limit=200)} cannot be used, nor removed: {error.strerror}")
        else:
            self._say(f"the kept prompt {shown(path.name)} was damaged and is removed; the prompt is read again")

    def _served_by(self, ids: Sequence[int], layers: Sequence[RollingBufferCache], owner: Owner) -> set[Path]:
        """Return the entries in whose place `layers`, which hold `ids`, can be taken up."""
        paths = [path for path, _ in self._files() if path.name.startswith(beginning_of(ids))]
        entries = [entry for path in paths if (entry := self._header(path)) and entry.owner == owner]
        return {entry.path for entry in entries if n_reusable(ids, layers, entry.ids) == len(entry.ids)}

    def _make_room(self, nbytes: int, served: set[Path]) -> None:
        """Remove what was used longest ago until `nbytes` more fit; `served` go in any case, but later."""
        files = [file for file in self._files() if file[0] not in served]
        nbytes += sum(status.st_size for _, status in files)
        for path, status in files:
            if nbytes <= self.limit:
                return
            path.unlink(missing_ok=True)
            nbytes -= status.st_size

    def _files(self, *, strict: bool = False) -> list[tuple[Path, os.stat_result]]:
        """Return the files of kept prompts, that which was used longest ago first.

        Where the folder cannot be read there are none, or if `strict` OSError is raised.
        """
        found = list[tuple[Path, os.stat_result]]()
        with suppress(FileNotFoundError if strict else OSError), os.scandir(self.folder) as files:
            for file in files:
                with suppress(OSError):  # another process may remove it meanwhile
                    found += [(Path(file.path), file.stat())] if is_entry(file) else []
        return sorted(found, key=lambda row: row[1].st_mtime_ns)

    def _remove_partials(self) -> None:
        """Remove what killed processes left half-written."""
        for path in self.folder.glob(PARTIALS):
            with suppress(OSError):
                if is_stale_partial(path):
                    path.unlink()

    def _owner(self, model: Mistral) -> Owner:
        if self._known is None or self._known[0] is not model:
            self._known = model, model_fingerprint(model)
        return Owner(self._known[1], made_by(model.args))


def _state(timeline: Timeline, n: int) -> list[RollingBufferCache] | None:
    """Return copies of the caches after the first `n` ids of `timeline`; None if it cannot go back to them."""
    ids = timeline.ids[:n]
    states = [(timeline.ids, timeline.layers), *((old.ids, old.cache) for old in timeline.snapshots.kept)]
    for held, layers in states if timeline.position == len(timeline.ids) else ():
        if n_reusable(held, layers, ids) == n:
            copies = [layer.copy() for layer in layers]
            for layer in copies:
                layer.trim(len(held) - n)
                if layer.size is None or layer.reserved <= layer.size:  # nothing was overwritten
                    layer.reserved = n
            return copies
    return None

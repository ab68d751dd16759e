"""The names and the folder of the chat's saved sessions; `mistral_mlx.session.saved` reads and writes the files."""

import datetime
import itertools
import re
import stat
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mistral_mlx.cli.models.folder_lock import locked
from mistral_mlx.cli.models.home import home
from mistral_mlx.errors import OptionError, SaveError, shown

if TYPE_CHECKING:
    from mistral_mlx.model.mistral import Mistral
    from mistral_mlx.session.saved import SavedCache
    from mistral_mlx.session.saved_document import FoundSessions, SavedInfo
    from mistral_mlx.session.session import Session
    from mistral_mlx.tokenizer.choose import Tokenizer

SUFFIX = ".json"
MAX_NAME = 64
_NAME = re.compile(rf"\w[\w.-]{{0,{MAX_NAME - 1}}}")


def sessions_folder() -> Path:
    """Return the folder of the saved sessions."""
    return home() / "sessions"


class _Written(NamedTuple):
    """Tells one state of a file from another: every save makes a new file."""

    inode: int
    modified_ns: int
    nbytes: int


@dataclass
class Store:
    """The folder of the sessions, and the name of the open one; with `autosave` each turn is saved.

    The caches of all sessions together have at most `cache_limit` bytes: the oldest go, their texts stay.
    """

    folder: Path
    autosave: bool = True
    cache_limit: int = 1 << 62
    name: str | None = None  # None until something is saved
    _known: _Written | None = field(default=None, repr=False)  # the file of `name` as this store last read or wrote it
    _cache: "SavedCache | None" = field(default=None, repr=False)  # that the session has on the disk

    def save(
        self, session: "Session", settings: dict[str, object], name: str | None = None, *, has_new_cache: bool = False
    ) -> str:
        """Save `session` as `name`, and return the name that it has from now on.

        Without `name` it keeps its name; the first one is made from the date and the first words. If another program
        has changed the file since this store read or wrote it, the session gets a new name instead: NAME-2, NAME-3, ...
        Its cache is written with `has_new_cache`; otherwise that which it has on the disk stays.

        Raises OptionError if `name` is invalid or another session's; SaveError if the file cannot be written.
        """
        from mistral_mlx.session import saved as saved_session
        from mistral_mlx.session.saved_files import make_room

        if name is not None:
            self.path(name)  # an invalid name makes no folder
        self._make_folder()
        with locked(self.folder):
            name = self._name_for(session, name)
            path, last = self.path(name), self._cache
            limit = min(saved_session.MAX_CACHE_BYTES, self.cache_limit)
            self._cache = saved_session.save(
                session, path, settings, has_new_cache=has_new_cache, last=last, max_cache_bytes=limit
            )
            self.name, self._known = name, _written(path)
            if self._cache is not last:
                make_room(self.folder, self.cache_limit, keep=path)
        return name

    def save_copy(self, session: "Session", settings: dict[str, object], ending: str) -> str | None:
        """Save `session` beside the open one, without its cache, as its name with `ending`, and return that name.

        Returns None if nothing is saved of this conversation. Raises SaveError if the file cannot be written.
        """
        from mistral_mlx.session.saved import save

        if not self.autosave or self.name is None:
            return None
        with locked(self.folder):
            name = self._free(self.name, ending)
            save(session, self.path(name), settings, has_new_cache=False)
        return name

    def n_missing(self, session: "Session") -> int:
        """Return how many tokens of `session` are in no cache on the disk."""
        return len(session.ids) if self._cache is None else self._cache.n_missing(session)

    def load(
        self, name: str, model: "Mistral", tokenizer: "Tokenizer", *, template: str | None = None
    ) -> tuple["Session", dict[str, object]]:
        """Return the session `name` and its settings; `save` then saves under this name.

        Raises OptionError if the name is invalid, SessionError if the session is damaged or another model's.
        """
        from mistral_mlx.session import saved as saved_session

        known = _written(self.path(name))  # before loading, so that a write during it counts as a change
        loaded = saved_session.load(self.path(name), model, tokenizer, template=template)
        self.name, self._known, self._cache = name, known, loaded.cache
        return loaded.session, loaded.settings

    def info(self, name: str) -> "SavedInfo":
        """Return the facts of the session `name`. Raises SessionError if it is damaged."""
        from mistral_mlx.session.saved_document import read_info

        return read_info(self.path(name))

    def forget(self) -> None:
        """Let the next session that is saved have a name of its own."""
        self.name = self._known = self._cache = None

    def path(self, name: str) -> Path:
        """Return the file of the session `name`. Raises OptionError for an invalid name."""
        if not _NAME.fullmatch(name):
            raise OptionError(
                f"{shown(name)} cannot be a session's name; take letters, digits, '-', '_' and '.', {MAX_NAME} at most"
            )
        return self.folder / f"{name}{SUFFIX}"

    def existing(self, name: str | None) -> str:
        """Return `name`, or that of the newest session if it is None. Raises OptionError if there is none."""
        names = self.names()
        if name is None:
            if not names:
                raise OptionError(f"no session is saved yet in {shown(str(self.folder), limit=200)}")
            return names[0]
        if not self.path(name).is_file():
            known = f"the last is {names[0]}" if names else "none is saved yet"
            raise OptionError(f"there is no session {shown(name)}; {known}")
        return name

    def names(self) -> list[str]:
        """Return the names of the sessions, the newest first, without reading them."""
        found = list[tuple[float, str]]()
        for path in self.folder.glob(f"*{SUFFIX}"):
            with suppress(OSError):  # another program may remove it meanwhile
                status = path.stat()
                if stat.S_ISREG(status.st_mode) and not path.name.startswith("."):
                    found.append((status.st_mtime, path.stem))
        return [name for _, name in sorted(found, reverse=True)]

    def found(self) -> "FoundSessions":
        """Return the sessions, the newest first, and the damaged ones."""
        from mistral_mlx.session.saved_document import find_sessions

        return find_sessions(self.folder)

    def remove(self, names: Sequence[str]) -> None:
        """Remove sessions with their caches. Raises OptionError, before any is removed, if there is no such session."""
        from mistral_mlx.session.saved_files import remove

        self._check_exist(names)
        with locked(self.folder):
            for name in names:
                remove(self.path(name))

    def remove_caches(self, names: Sequence[str]) -> int:
        """Remove the caches of sessions, which are read again when they go on; return how many bytes they had."""
        from mistral_mlx.session.saved_files import remove_caches

        self._check_exist(names)
        if not names:
            return 0
        with locked(self.folder):
            return sum(remove_caches(self.path(name)) for name in names)

    def rename(self, old: str, new: str) -> None:
        """Give the session `old` the name `new`. Raises OptionError if there is none, or the name is not free."""
        from mistral_mlx.session.saved_files import rename

        self._check_exist([old])
        with locked(self.folder):
            if self.path(new).exists():
                raise OptionError(f"there is a session {shown(new)} already; take another name")
            rename(self.path(old), self.path(new))

    def _check_exist(self, names: Sequence[str]) -> None:
        for name in names:
            self.existing(name)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SaveError(
                f"the folder {shown(str(self.folder), limit=200)} cannot be made ({error.strerror}); nothing is saved"
            ) from error

    def _name_for(self, session: "Session", wanted: str | None) -> str:
        if wanted is not None and wanted != self.name:
            if self.path(wanted).exists():
                raise OptionError(f"there is a session {shown(wanted)} already; take another name")
            return wanted
        if self.name is None:
            first = str(session.transcript[0]["content"]) if session.transcript else ""
            words = re.findall(r"[^\W_]+", first.casefold())[:5]
            return self._free("-".join([datetime.date.today().isoformat(), *words])[: MAX_NAME - 4])
        now = _written(self.path(self.name))
        return self.name if now in (None, self._known) else self._free(self.name)

    def _free(self, stem: str, ending: str = "") -> str:
        """Return `stem` with `ending`, and with the first number that makes it a name no session has."""
        endings = itertools.chain([ending], (f"{ending}-{n}" for n in itertools.count(2)))
        candidates = (_shortened(stem, ending) for ending in endings)
        return next(name for name in candidates if not self.path(name).exists())


def _shortened(stem: str, ending: str = "") -> str:
    return stem[: MAX_NAME - len(ending)].rstrip("-") + ending


def _written(path: Path) -> _Written | None:
    """Return what tells this state of the file from others; None if it does not exist."""
    try:
        status = path.stat()
    except OSError:
        return None
    return _Written(status.st_ino, status.st_mtime_ns, status.st_size)

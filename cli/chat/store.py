"""The names and the folder of the chat's saved sessions; `mistral_mlx.session.saved` reads and writes the files."""

import datetime
import itertools
import re
import stat
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from mistral_mlx.cli.models.folder_lock import locked
from mistral_mlx.errors import OptionError, SessionError, shown

if TYPE_CHECKING:
    from mistral_mlx.model.mistral import Mistral
    from mistral_mlx.session.saved import FoundSessions
    from mistral_mlx.session.session import Session
    from mistral_mlx.tokenizer.choose import Tokenizer

SUFFIX = ".json"
MAX_NAME = 64
_NAME = re.compile(rf"\w[\w.-]{{0,{MAX_NAME - 1}}}")


class _Written(NamedTuple):
    """Tells one state of a file from another: every save makes a new file."""

    inode: int
    modified_ns: int
    nbytes: int


@dataclass
class Store:
    """The folder of the sessions, and the name of the open one; with `autosave` each turn is saved."""

    folder: Path
    autosave: bool = True
    name: str | None = None  # None until something is saved
    _known: _Written | None = field(default=None, repr=False)  # the file of `name` as this store last read or wrote it

    def save(self, session: "Session", settings: dict[str, object], name: str | None = None) -> str:
        """Save `session` as `name`, and return the name that it has from now on.

        Without `name` it keeps its name; the first one is made from the date and the first words. If another program
        has changed the file since this store read or wrote it, the session gets a new name instead: NAME-2, NAME-3, ...

        Raises OptionError if `name` is invalid or another session's; SessionError if the file cannot be written.
        """
        from mistral_mlx.session import saved as saved_session

        if name is not None:
            self.path(name)  # an invalid name makes no folder
        self._make_folder()
        with locked(self.folder):
            name = self._name_for(session, name)
            saved_session.save(session, self.path(name), settings)
            self.name, self._known = name, _written(self.path(name))
        return name

    def load(
        self, name: str, model: "Mistral", tokenizer: "Tokenizer", *, template: str | None = None
    ) -> tuple["Session", dict[str, object]]:
        """Return the session `name` and its settings; `save` then saves under this name.

        Raises OptionError if the name is invalid, SessionError if the session is damaged or another model's.
        """
        from mistral_mlx.session import saved as saved_session

        known = _written(self.path(name))  # before loading, so that a write during it counts as a change
        loaded = saved_session.load(self.path(name), model, tokenizer, template=template)
        self.name, self._known = name, known
        return loaded

    def model_of(self, name: str) -> str:
        """Return the name of the model that the session `name` was saved with. Raises SessionError if it is damaged."""
        from mistral_mlx.session.saved import read_info

        return read_info(self.path(name)).model

    def forget(self) -> None:
        """Let the next session that is saved have a name of its own."""
        self.name = self._known = None

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
        from mistral_mlx.session.saved import find_sessions

        return find_sessions(self.folder)

    def _make_folder(self) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SessionError(
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

    def _free(self, stem: str) -> str:
        """Return `stem`, or with the first number that makes it a name no session has."""
        candidates = itertools.chain([_shortened(stem)], (_shortened(stem, f"-{n}") for n in itertools.count(2)))
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

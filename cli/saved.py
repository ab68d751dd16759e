"""The chat's sessions: what they are called and where they lie; what is in them is the engine's."""

import datetime
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_mlx.errors import OptionError, SessionError, shown

if TYPE_CHECKING:
    from mistral_mlx.saved_session import SavedInfo
    from mistral_mlx.session import Session

SUFFIX = ".json"
MAX_NAME = 64
_NAME = re.compile(rf"\w[\w.-]{{0,{MAX_NAME - 1}}}")


@dataclass
class Store:
    """The folder of the sessions and the one that is being held; with `autosave` each turn is saved."""

    folder: Path
    autosave: bool = True
    name: str | None = None  # None until something is saved

    def save(self, session: "Session", settings: dict[str, object], name: str | None = None) -> str:
        """Save `session` as `name`, from now on its name, and return it; by default that of the date and first words.

        Raises OptionError if that cannot be a name, or is another session's; SessionError if it cannot be written.
        """
        from mistral_mlx import saved_session

        if name is not None and name != self.name and self.path(name).exists():
            raise OptionError(f"there is a session {shown(name)} already; take another name")
        name = name or self.name or self._new_name(str(session.transcript[0]["content"]) if session.transcript else "")
        try:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise SessionError(
                f"the folder {shown(str(self.folder), limit=200)} cannot be made ({error.strerror}); nothing is saved"
            ) from error
        saved_session.save(session, self.path(name), settings)
        self.name = name
        return name

    def path(self, name: str) -> Path:
        """Return the file of the session `name`. Raises OptionError if that cannot be a name."""
        if not _NAME.fullmatch(name):
            raise OptionError(
                f"{shown(name)} cannot be a session's name; take letters, digits, '-', '_' and '.', {MAX_NAME} at most"
            )
        return self.folder / f"{name}{SUFFIX}"

    def existing(self, name: str | None) -> str:
        """Return the session's name, by default the last one's. Raises OptionError if there is none."""
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
        paths = [path for path in self.folder.glob(f"*{SUFFIX}") if path.is_file() and not path.name.startswith(".")]
        return [path.stem for path in sorted(paths, key=lambda path: path.stat().st_mtime, reverse=True)]

    def infos(self) -> list["SavedInfo"]:
        """Return what is known of the sessions, the newest first."""
        from mistral_mlx.saved_session import list_sessions

        return list_sessions(self.folder)

    def _new_name(self, text: str) -> str:
        words = re.findall(r"[^\W_]+", text.casefold())[:5]
        stem = "-".join([datetime.date.today().isoformat(), *words])[: MAX_NAME - 4].rstrip("-")
        taken = set(self.names())
        return next(name for n in range(1, 1000) if (name := f"{stem}-{n}" if n > 1 else stem) not in taken)

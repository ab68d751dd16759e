"""Saves the conversation of a chat: its text at every turn, its cache when that pays."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mistral_mlx.errors import MistralMLXError

from .cache_times import CacheTimes
from .store import Store

if TYPE_CHECKING:
    from mistral_mlx.cli.terminal.notes import Notes
    from mistral_mlx.session.session import Session


@dataclass
class Saving:
    """Saves to `store`, and knows whether that went well."""

    store: Store
    notes: Notes
    error: MistralMLXError | None = None  # why the last attempt failed, if it did
    cache_times: CacheTimes = field(default_factory=CacheTimes)

    def save(self, session: Session, settings: dict[str, object], *, leaves: bool = False) -> None:
        """Save `session` if it has begun and autosave is on; the first of several errors is printed."""
        if not self.store.autosave or not (self.store.name or session.transcript):
            return
        try:
            self.save_as(None, session, settings, leaves=leaves)
        except MistralMLXError as error:
            if self.error is None:
                self.notes.error(str(error))
            self.error = error

    def save_as(self, name: str | None, session: Session, settings: dict[str, object], *, leaves: bool = False) -> str:
        """Save `session` as `name`, by default under the name it has, and return its name from now on.

        The cache is written when the chat `leaves` the conversation, or if it is time.

        Raises OptionError or SaveError as `Store.save` does.
        """
        wanted = name or self.store.name
        is_due = self.cache_times.is_due(self.store.n_missing(session), leaves=leaves)
        has_new_cache = is_due and not session.is_answering
        saved = self.store.save(session, settings, name, has_new_cache=has_new_cache)
        self.error = None
        if has_new_cache:
            self.cache_times.is_written()
        if wanted and saved != wanted:
            self.notes.say(f"another program has changed the session {wanted}; this conversation is saved as {saved}")
        return saved

    def leave(self, session: Session, settings: dict[str, object]) -> None:
        """Save what the conversation has that is not on the disk yet: its cache, or all of it after an error."""
        if self.store.autosave and (self.error or self.cache_times.is_due(self.store.n_missing(session), leaves=True)):
            self.save(session, settings, leaves=True)

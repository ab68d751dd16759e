"""Saves and loads sessions: a JSON file each, and next to it the cache, unless that is too large.

A session is replaced as a whole: a new cache gets a new name, and the JSON file, which contains that name, is renamed
into place when both are on the disk. The JSON file also names the ids that the cache holds, so the cache may be older
than the text: the next answer goes on from what the two have in common. The files are untrusted data; a session of
another model is refused. If the cache is missing, was too large to be saved, or is from other kernels, the next answer
needs a prefill.
"""

import datetime
import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from mistral_mlx.errors import OptionError, SaveError, SessionError, shown
from mistral_mlx.files.whole import new_file, partial_path, sync_folder
from mistral_mlx.generation.snapshots import n_common
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.tokenizer.choose import Tokenizer

from .fingerprint import Fingerprints
from .saved_cache import computed_by, read_cache, saved_nbytes, write_cache
from .saved_document import (
    FORMAT,
    VERSION,
    cache_path,
    checked_system,
    checked_text,
    damaged,
    is_cache_id,
    read_document,
)
from .saved_files import tidy
from .saved_messages import checked_ids, checked_messages
from .session import Session
from .turns import count_turns

MAX_CACHE_BYTES = 256 * 1024 * 1024
NAMES = {"model": "model", "tokenizer": "tokenizer", "template": "chat template"}


@dataclass(frozen=True)
class SavedCache:
    """The cache that a session was saved with: its entry in the JSON file, its ids, and the model's fingerprint."""

    entry: Mapping[str, object]
    ids: list[int]
    model: str

    def is_at(self, path: Path) -> bool:
        """Whether the file of this cache is next to the session in the file `path`."""
        return cache_path(path, str(self.entry["id"])).is_file()

    def n_missing(self, session: Session) -> int:
        """Return how many tokens `session` has read that this cache lacks."""
        n = n_common(self.ids, session.ids) if self.model == session.fingerprints.model else 0
        return len(session.ids) - (n if n == len(self.ids) or not session.wrapped else 0)


class Loaded(NamedTuple):
    """A session, the settings saved with it, and its cache if that was there and could be used."""

    session: Session
    settings: dict[str, object]
    cache: SavedCache | None


def save(
    session: Session,
    path: Path,
    settings: Mapping[str, object],
    *,
    has_new_cache: bool = True,
    last: SavedCache | None = None,
    max_cache_bytes: int = MAX_CACHE_BYTES,
) -> SavedCache | None:
    """Write `session` and any JSON `settings` to the file `path`, mode 0600; an old file is replaced.

    "model" in the settings is the name shown in lists, "folder" the model's. During an answer, its question is saved
    without an answer; `Session.retry` answers it.

    The cache is written, too, with `has_new_cache` and between answers, if it has at most `max_cache_bytes`. Otherwise
    that of the `last` save stays, if it is of the same model. Returns the cache that the session has on the disk.

    Raises SaveError if the file cannot be written; the old file is unchanged then.
    """
    new_id = secrets.token_hex(8)
    partial = partial_path(path)
    unkept = None
    kept = last if last and last.model == session.fingerprints.model and last.is_at(path) else None
    try:
        if has_new_cache and session.model.is_whole and not session.is_answering and session.ids:
            nbytes = saved_nbytes(session.cache)
            if nbytes > max_cache_bytes:
                unkept = nbytes
            else:
                kept = _save_cache(session, path, new_id)
        with new_file(partial) as file:
            document = _document(session, settings, kept, unkept)
            file.write(json.dumps(document, allow_nan=False).encode())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        for left in (partial, cache_path(path, new_id)):
            with suppress(OSError):
                left.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise SaveError(f"the session cannot be saved as {shown(str(path), limit=200)}: {reason}") from error
        raise
    tidy(path, keep=str(kept.entry["id"]) if kept else None)
    return kept


def load(
    path: Path, model: Mistral, tokenizer: Tokenizer, *, template: str | None = None, on_overflow: str = "stop"
) -> Loaded:
    """Return the session in the file `path`, the settings saved with it, and its cache.

    Raises SessionError if the file is missing, damaged, of another version, or was saved with another model, tokenizer
    or chat template; `template`, if given, must be the one it was saved with.
    """
    document = read_document(path)
    saved_template = document.get("template")
    session = Session(
        model,
        tokenizer,
        system=checked_system(document.get("system"), path),
        template=checked_text(saved_template, path, "template") if template is None else template,
        on_overflow=on_overflow,
    )
    try:
        ours = session.fingerprints
    except OptionError as error:
        raise SessionError(f"{shown(path.name)} cannot be opened: {error}") from error
    _check_fingerprints(document, ours, path)
    session.messages = checked_messages(document.get("messages"), path, model.args.vocab_size, tokenizer)
    settings = document.get("settings")
    if not isinstance(settings, dict):
        raise damaged(path, f"its settings are {shown(settings)}")
    return Loaded(session, settings, _load_cache(session, document.get("cache"), path))


# Writing


def _document(
    session: Session, settings: Mapping[str, object], cache: SavedCache | None, unkept: int | None
) -> dict[str, object]:
    return {
        "format": FORMAT,
        "version": VERSION,
        "model": shown(settings.get("model", ""), limit=200),
        "turns": count_turns(session.transcript),
        "saved_at": datetime.datetime.now(datetime.UTC).isoformat(timespec="microseconds"),
        "fingerprints": asdict(session.fingerprints),
        "template": session.template,
        "system": session.system,
        "messages": session.transcript,
        "settings": settings,
        "cache": None if cache is None else {**cache.entry, "ids": cache.ids},
        **({} if unkept is None else {"unkept_nbytes": unkept}),
    }


def _save_cache(session: Session, path: Path, cache_id: str) -> SavedCache:
    """Write the cache."""
    with new_file(cache_path(path, cache_id)) as file:
        crc = write_cache(file, session.cache, session.ids)
    entry = {"id": cache_id, "crc32": crc, "computed_by": computed_by()}
    return SavedCache(entry, list(session.ids), session.fingerprints.model)


# Reading


def _check_fingerprints(document: Mapping[str, object], ours: Fingerprints, path: Path) -> None:
    saved = document.get("fingerprints")
    if not isinstance(saved, dict):
        raise damaged(path, "it has no fingerprints")
    for field in fields(ours):
        if saved.get(field.name) != getattr(ours, field.name):
            model = f", {shown(document.get('model'))}" if field.name == "model" else ""
            raise SessionError(
                f"the session {shown(path.stem)} was saved with another {NAMES[field.name]}{model}; open it with that "
                "one"
            )


def _load_cache(session: Session, saved: object, path: Path) -> SavedCache | None:
    """Give the session its saved cache, and return it, unless that is missing or was computed by other kernels.

    A model that is shared by processes takes none: its cache lies in all of them.
    """
    if saved is None or not session.model.is_whole:
        return None
    if not isinstance(saved, dict):
        raise damaged(path, f"its cache is {shown(saved)}")
    cache_id, crc = saved.get("id"), saved.get("crc32")
    if not is_cache_id(cache_id) or type(crc) is not int:
        raise damaged(path, f"its cache is {shown(saved)}")
    ids = checked_ids(saved.get("ids"), path, session.model.args.vocab_size)
    file = cache_path(path, str(cache_id))
    if saved.get("computed_by") != computed_by() or not file.is_file():
        return None
    layers = read_cache(file, session.model.args, ids, crc)
    if layers is None:
        return None
    session.timeline.restore(ids, layers)
    entry = {key: value for key, value in saved.items() if key != "ids"}
    return SavedCache(entry, list(ids), session.fingerprints.model)

"""Saves and loads sessions: a JSON file each, and next to it the cache, unless that is too large.

A session is replaced as a whole: the cache gets a new name, and the JSON file, which contains that name, is renamed
into place when both are on the disk. The files are untrusted data; a session of another model is refused. If the cache
is missing, too large to be saved, or from other kernels, the next answer needs a prefill.
"""

import datetime
import json
import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import NamedTuple

from mistral_mlx.errors import OptionError, SessionError, shown
from mistral_mlx.files.json import parse_json
from mistral_mlx.files.whole import is_stale_partial, new_file, partial_path, sync_folder
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.tokenizer.choose import Tokenizer

from .fingerprint import Fingerprints
from .saved_cache import computed_by, read_cache, saved_nbytes, write_cache
from .saved_messages import checked_ids, checked_messages, checked_system, checked_text, damaged
from .session import Session
from .turns import count_turns

FORMAT, VERSION = "mistral-mlx session", 1
SUFFIX = ".json"
MAX_CACHE_BYTES = 256 * 1024 * 1024  # written anew with each turn
MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_JSON_ITEMS = 1 << 22
YEARS = range(1971, 9999)  # which any time zone can show
NAMES = {"model": "model", "tokenizer": "tokenizer", "template": "chat template"}


@dataclass(frozen=True)
class SavedInfo:
    """The facts that a list of sessions shows."""

    name: str
    path: Path
    model: str  # what the settings call it
    turns: int
    saved_at: datetime.datetime  # UTC


@dataclass(frozen=True)
class DamagedSession:
    """A session that cannot be read, and the reason as `load` raises it."""

    name: str
    reason: str


class FoundSessions(NamedTuple):
    """The sessions of a folder."""

    whole: list[SavedInfo]
    damaged: list[DamagedSession]


def save(
    session: Session, path: Path, settings: Mapping[str, object], *, max_cache_bytes: int = MAX_CACHE_BYTES
) -> None:
    """Write `session` and any JSON `settings` to the file `path`, mode 0600; an old file is replaced.

    "model" in the settings is the name shown in lists. During an answer, its question is saved without an answer;
    `Session.retry` answers it. Raises SessionError if the file cannot be written; the old file is unchanged then.
    """
    cache_id = secrets.token_hex(8)
    partial = partial_path(path)
    try:
        cache = _save_cache(session, path, cache_id, max_cache_bytes)
        with new_file(partial) as file:
            file.write(json.dumps(_document(session, settings, cache), allow_nan=False).encode())
        partial.replace(path)
        sync_folder(path.parent)
    except BaseException as error:
        for left in (partial, _cache_path(path, cache_id)):
            with suppress(OSError):
                left.unlink()
        if isinstance(error, OSError):
            reason = error.strerror or error
            raise SessionError(f"the session cannot be saved as {shown(str(path), limit=200)}: {reason}") from error
        raise
    _tidy(path, keep=cache_id)


def load(
    path: Path, model: Mistral, tokenizer: Tokenizer, *, template: str | None = None, on_overflow: str = "stop"
) -> tuple[Session, dict[str, object]]:
    """Return the session in the file `path`, and the settings saved with it.

    Raises SessionError if the file is missing, damaged, of another version, or was saved with another model, tokenizer
    or chat template; `template`, if given, must be the one it was saved with.
    """
    document = _read(path)
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
    _check_fingerprints(document.get("fingerprints"), ours, path)
    session.messages = checked_messages(document.get("messages"), path, model.args.vocab_size, tokenizer)
    settings = document.get("settings")
    if not isinstance(settings, dict):
        raise damaged(path, f"its settings are {shown(settings)}")
    _load_cache(session, document.get("cache"), path)
    return session, settings


def find_sessions(folder: Path) -> FoundSessions:
    """Return the sessions in `folder`, the newest first, and the files there that are none or damaged, by name."""
    whole, bad = list[SavedInfo](), list[DamagedSession]()
    for path in sorted(folder.glob(f"*{SUFFIX}")) if folder.is_dir() else ():
        try:
            whole.append(read_info(path))
        except SessionError as error:
            if path.is_file():  # not a folder, nor removed meanwhile
                bad.append(DamagedSession(path.name.removesuffix(SUFFIX), str(error)))
    return FoundSessions(sorted(whole, key=lambda info: info.saved_at, reverse=True), bad)


def list_sessions(folder: Path) -> list[SavedInfo]:
    """Return the sessions in `folder`, the newest first, without the damaged ones."""
    return find_sessions(folder).whole


def read_info(path: Path) -> SavedInfo:
    """Return what a list shows of the session in the file `path`.

    Raises SessionError if the file is missing, damaged or of another version.
    """
    return _info(path, _read(path))


def remove(path: Path) -> None:
    """Remove the session in the file `path` and its cache. Raises SessionError if it cannot be."""
    try:
        path.unlink()
    except OSError as error:
        raise SessionError(f"{shown(str(path), limit=200)} cannot be removed: {error.strerror or error}") from error
    _tidy(path, keep=None)


# Writing


def _document(session: Session, settings: Mapping[str, object], cache: object) -> dict[str, object]:
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
        "cache": cache,
    }


def _save_cache(session: Session, path: Path, cache_id: str, max_nbytes: int) -> dict[str, object] | None:
    """Write the cache unless it is too large, and return its entry for the document."""
    if session.is_answering or not session.ids or saved_nbytes(session.cache) > max_nbytes:
        return None
    with new_file(_cache_path(path, cache_id)) as file:
        crc = write_cache(file, session.cache, session.ids)
    return {"id": cache_id, "crc32": crc, "computed_by": computed_by(), "ids": session.ids}


def _cache_path(path: Path, cache_id: str) -> Path:
    return path.with_name(f"{path.name}.{cache_id}.safetensors")


def _tidy(path: Path, *, keep: str | None) -> None:
    """Remove the caches of `path` except that with the id `keep`, and partial files of killed processes."""
    ours = re.compile(re.escape(path.name) + r"\.([0-9a-f]{16})\.safetensors", re.ASCII)
    with suppress(OSError):
        for other in path.parent.iterdir():
            match = ours.fullmatch(other.name)
            if is_stale_partial(other, path.name) or (match and match[1] != keep):
                other.unlink()


# Reading


def _read(path: Path) -> dict[str, object]:
    """Return the JSON object in `path`. Raises SessionError for another format or version."""
    name = shown(path.name)
    if not path.is_file():
        raise SessionError(f"there is no saved session {shown(str(path), limit=200)}")
    try:
        nbytes = path.stat().st_size
        text = path.read_text("utf-8") if nbytes <= MAX_JSON_BYTES else None
    except UnicodeDecodeError as error:
        raise damaged(path, "it is not UTF-8") from error
    except OSError as error:
        raise SessionError(f"{name} cannot be read: {error.strerror or error}") from error
    if text is None:
        raise damaged(path, f"it has {nbytes:,} bytes, and a session at most {MAX_JSON_BYTES:,}")
    try:
        document = parse_json(text, name=path.name, error=SessionError, max_items=MAX_JSON_ITEMS, any_text=True)
    except SessionError as error:
        raise damaged(path, str(error)) from error
    if document.get("format") != FORMAT:
        raise damaged(path, f"its format is {shown(document.get('format'))}, not {FORMAT!r}")
    if document.get("version") != VERSION or type(document["version"]) is not int:
        raise SessionError(
            f"{name} is a session of version {shown(document.get('version'))}; this program reads version {VERSION}"
        )
    return document


def _info(path: Path, document: Mapping[str, object]) -> SavedInfo:
    model, turns, saved_at = document.get("model"), document.get("turns"), document.get("saved_at")
    try:
        moment = datetime.datetime.fromisoformat(saved_at if isinstance(saved_at, str) else "")
    except ValueError:
        moment = datetime.datetime.min
    is_date = moment.tzinfo is not None and moment.year in YEARS
    if not isinstance(model, str) or type(turns) is not int or turns < 0 or not is_date:
        raise damaged(path, "its model, its number of turns or its date is invalid")
    return SavedInfo(path.name.removesuffix(SUFFIX), path, model, turns, moment)


def _check_fingerprints(saved: object, ours: Fingerprints, path: Path) -> None:
    if not isinstance(saved, dict):
        raise damaged(path, "it has no fingerprints")
    for field in fields(ours):
        if saved.get(field.name) != getattr(ours, field.name):
            raise SessionError(
                f"the session {shown(path.name)} was saved with another {NAMES[field.name]}; open it with that one"
            )


def _load_cache(session: Session, saved: object, path: Path) -> None:
    """Give the session its saved cache, unless that is missing or was computed by other kernels."""
    if saved is None:
        return
    if not isinstance(saved, dict):
        raise damaged(path, f"its cache is {shown(saved)}")
    cache_id, crc = saved.get("id"), saved.get("crc32")
    if not isinstance(cache_id, str) or not re.fullmatch(r"[0-9a-f]{16}", cache_id, re.ASCII) or type(crc) is not int:
        raise damaged(path, f"its cache is {shown(saved)}")
    ids = checked_ids(saved.get("ids"), path, session.model.args.vocab_size)
    file = _cache_path(path, cache_id)
    if saved.get("computed_by") == computed_by() and file.is_file():
        layers = read_cache(file, session.model.args, ids, crc)
        if layers is not None:
            session.timeline.restore(ids, layers)

"""What the file of a saved session says, without its model: its facts and its texts. Files are untrusted data."""

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mistral_mlx.errors import OptionError, SessionError, shown
from mistral_mlx.files.json import parse_json
from mistral_mlx.prompt.content import checked_content
from mistral_mlx.prompt.official import SystemContent

from .turns import Message

FORMAT, VERSION = "mistral-mlx session", 1
SUFFIX = ".json"
ROLES = ("system", "user", "assistant")
MAX_JSON_BYTES = 64 * 1024 * 1024
MAX_JSON_ITEMS = 1 << 22
YEARS = range(1971, 9999)  # which any time zone can show
_CACHE_ID = re.compile(r"[0-9a-f]{16}", re.ASCII)


@dataclass(frozen=True)
class SavedInfo:
    """The facts that a list of sessions shows."""

    name: str
    path: Path
    model: str  # what the settings call it
    turns: int
    saved_at: datetime.datetime  # UTC
    folder: str | None = None  # of the model, absolute; earlier versions did not save it
    nbytes: int = 0  # of the text
    cache_nbytes: int = 0
    unkept_nbytes: int | None = None  # of a cache that was too large to be saved


@dataclass(frozen=True)
class DamagedSession:
    """A session that cannot be read, and the reason as `load` raises it."""

    name: str
    reason: str


class FoundSessions(NamedTuple):
    """The sessions of a folder."""

    whole: list[SavedInfo]
    damaged: list[DamagedSession]


def damaged(path: Path, what: str) -> SessionError:
    """Return the error that the session in the file `path` is damaged: `what` is wrong with it."""
    file = shown(str(path), limit=200)
    return SessionError(f"the session {file} is damaged: {what}; delete the file or take another session")


def find_sessions(folder: Path) -> FoundSessions:
    """Return the sessions in `folder`, the newest first, and the files there that are none or damaged, by name."""
    whole, bad = list[SavedInfo](), list[DamagedSession]()
    for path in sorted(folder.glob(f"[!.]*{SUFFIX}")) if folder.is_dir() else ():
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
    return _info(path, read_document(path))


def read_texts(path: Path) -> tuple[SystemContent | None, list[Message]]:
    """Return the system prompt and the messages of the session in the file `path`, to be shown.

    Raises SessionError as `read_info` does, and for messages without a role and a text.
    """
    document = read_document(path)
    messages, system = document.get("messages"), checked_system(document.get("system"), path)
    if not isinstance(messages, list):
        raise damaged(path, f"its messages are {shown(messages)}")
    for number, message in enumerate(messages, start=1):
        if (
            not isinstance(message, dict)
            or message.get("role") not in ROLES
            or not isinstance(message.get("content"), str)
        ):
            raise damaged(path, f"message {number} is {shown(message)}")
    return system, messages


def read_document(path: Path) -> dict[str, object]:
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


def checked_text(value: object, path: Path, key: str) -> str | None:
    """Return a text or None. Raises SessionError for anything else."""
    if value is not None and not isinstance(value, str):
        raise damaged(path, f"its {key} is {shown(value)}")
    return value


def checked_system(value: object, path: Path) -> SystemContent | None:
    """Return a system prompt: a text, chunks, or None. Raises SessionError for anything else."""
    if not isinstance(value, list) or not value:
        return checked_text(value, path, "system")
    try:
        checked_content(value, "the system prompt")
    except OptionError as error:
        raise damaged(path, str(error)) from error
    return value


def cache_path(path: Path, cache_id: str) -> Path:
    """Return the file of the cache `cache_id` of the session in the file `path`."""
    return path.with_name(f"{path.name}.{cache_id}.safetensors")


def is_cache_id(value: object) -> bool:
    """Return whether `value` can name a cache: the path that is made of it leads nowhere else."""
    return isinstance(value, str) and bool(_CACHE_ID.fullmatch(value))


def _info(path: Path, document: Mapping[str, object]) -> SavedInfo:
    model, turns, saved_at = document.get("model"), document.get("turns"), document.get("saved_at")
    try:
        moment = datetime.datetime.fromisoformat(saved_at if isinstance(saved_at, str) else "")
    except ValueError:
        moment = datetime.datetime.min
    is_date = moment.tzinfo is not None and moment.year in YEARS
    if not isinstance(model, str) or type(turns) is not int or turns < 0 or not is_date:
        raise damaged(path, "its model, its number of turns or its date is invalid")
    settings, cache, unkept = document.get("settings"), document.get("cache"), document.get("unkept_nbytes")
    folder = settings.get("folder") if isinstance(settings, dict) else None
    cache_id = cache.get("id") if isinstance(cache, dict) else None
    return SavedInfo(
        path.name.removesuffix(SUFFIX),
        path,
        model,
        turns,
        moment,
        folder if isinstance(folder, str) else None,
        _nbytes(path),
        _nbytes(cache_path(path, str(cache_id))) if is_cache_id(cache_id) else 0,
        unkept if type(unkept) is int else None,
    )


def _nbytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # another program may remove it meanwhile
        return 0

"""A model folder as untrusted data: confined paths and bounded JSON; knows nothing of what the files mean."""

import json
import math
import os
import re
from collections.abc import Callable
from pathlib import Path

from mistral_mlx.errors import ConfigError, MistralMLXError, ModelError, shown

MAX_JSON_BYTES = 32 * 1024 * 1024  # Mistral's largest tokenizer.json has 17 MB
MAX_JSON_ITEMS = 1 << 21  # commas and opening brackets: that file has a million; a parsed item can take 150 bytes
MAX_JSON_DEPTH = 64  # of lists in lists; real files have 6
MAX_DIGITS = 100  # of a whole number; transformers writes 31 for "no limit"

_SURROGATE = re.compile(r"\\ud[89a-f]", re.IGNORECASE)


class ModelFolder:
    """A folder whose files can be opened only by plain names, and only inside it.

    Hub caches store a snapshot as symbolic links into a sibling folder ``blobs``. So a link may lead anywhere below
    the folder itself or into ``../../blobs``; any other link is refused.

    Raises ModelError if `path` is not a directory.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path).expanduser()
        if not self.path.is_dir():
            what = "is not a directory" if self.path.exists() else "does not exist"
            raise ModelError(f"no such model directory: {shown(str(path))} {what}")

    def __repr__(self) -> str:
        return f"ModelFolder({str(self.path)!r})"

    def has(self, name: str) -> bool:
        """Return whether a file of this name exists."""
        try:
            return (self.path / name).is_file()
        except OSError:  # for example, the name is too long
            return False

    def file(self, name: str) -> Path:
        """Return the path of the file `name`.

        Raises ModelError if the name is not plain, the file is not a regular one, or a link leads out of the folder.
        """
        if not name or name != os.path.basename(name) or name in (".", "..") or "\\" in name or "\0" in name:
            raise ModelError(
                f"{shown(name)} is not a plain file name; files outside {shown(str(self.path))} are never read"
            )
        path = self.path / name
        if not self.has(name):
            state = "is not a regular file in" if os.path.lexists(path) else "is missing from"
            raise ModelError(f"{shown(name)} {state} {shown(str(self.path))}")
        if path.is_symlink():
            self._check_link(path)
        return path

    def _check_link(self, path: Path) -> None:
        target, root = path.resolve(), self.path.resolve()
        blobs = root.parent.parent / "blobs" if root.parent.name == "snapshots" else root
        if not (target.is_relative_to(root) or target.is_relative_to(blobs)):
            raise ModelError(
                f"{shown(path.name)} is a link out of {shown(str(self.path))}; replace it with the file itself"
            )

    def json(self, name: str) -> dict[str, object]:
        """Return the JSON object in the file `name`; NaN, infinities and repeated keys are refused."""
        return parse_json(self.text(name), name=name)

    def text(self, name: str, *, limit: int = MAX_JSON_BYTES) -> str:
        """Return the UTF-8 text in the file `name`, of at most `limit` bytes."""
        try:
            return self.read(name, limit=limit).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"{shown(name)} is not UTF-8 text ({error.reason} at byte {error.start})") from error

    def read(self, name: str, *, limit: int) -> bytes:
        """Return the bytes of the file `name`, at most `limit` of them."""
        path = self.file(name)
        try:
            nbytes = path.stat().st_size
            if nbytes <= limit:
                return path.read_bytes()
        except OSError as error:
            raise ModelError(f"{shown(name)} cannot be read ({error.strerror or error})") from error
        raise ModelError(f"{shown(name)} is {nbytes} bytes; more than {limit} is not plausible for this file")


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in `path`. Raises ConfigError if it is anything else."""
    folder = ModelFolder(path.parent)
    return parse_json(folder.text(path.name), name=path.name)


def parse_json(
    text: str,
    *,
    name: str,
    error: type[MistralMLXError] = ConfigError,
    max_items: int = MAX_JSON_ITEMS,
    any_text: bool = False,
) -> dict[str, object]:
    """Return the JSON object in `text`; `name` is the file the error is about.

    Raises `error` for broken JSON, NaN or infinity, a repeated key, a top level that is not an object, more than
    `max_items` items, deep nesting, and half a character (a lone surrogate) in a text unless `any_text` allows it.
    """
    try:
        if (items := sum(map(text.count, ",[{"))) > max_items:
            raise ValueError(f"{items} items are more than the {max_items} that are plausible")
        value = json.loads(
            text,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_whole,
            object_pairs_hook=_unique_keys,
        )
        _check_depth(value)
        if not any_text and _SURROGATE.search(text):
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        raise error(f"{shown(name)} is not valid JSON: {shown(str(problem), limit=120)}") from problem
    if not isinstance(value, dict):
        raise error(f"{shown(name)} must hold a JSON object, not {type(value).__name__}")
    return value


def _refuse_constant(word: str) -> Callable[[], None]:
    raise ValueError(f"{word} is not a number JSON allows")


def _finite(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"{shown(digits)} is too large for a number")
    return value


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError(f"a number has {len(digits)} digits")
    return int(digits)


def _check_depth(value: object) -> None:
    """Raise ValueError for what could not be shown or written again: Python itself nests only so deep."""
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        inner = (v.values() if isinstance(v, dict) else v for v in level if isinstance(v, dict | list))
        level = [child for children in inner for child in children if isinstance(child, dict | list)]
        if not level:
            return
    raise ValueError(f"it is nested more than {MAX_JSON_DEPTH} deep")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(repeated)} stands there twice")
    return found

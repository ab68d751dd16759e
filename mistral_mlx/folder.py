"""A model folder as untrusted data: confined paths and bounded JSON; knows nothing of what the files mean."""

import json
import os
from collections.abc import Callable
from pathlib import Path

from .errors import ConfigError, MistralMLXError, ModelError, shown

MAX_JSON_BYTES = 64 * 1024 * 1024  # the largest tokenizer.json in the wild is about 20 MB


class ModelFolder:
    """A directory whose files are only reached by plain names, and only inside it.

    Hub caches store a snapshot as symbolic links into a sibling ``blobs`` folder, so a link may lead anywhere
    below the folder itself or into ``../../blobs``; any other way out is refused.

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
        """Whether a file of this name is present."""
        return (self.path / name).is_file()

    def file(self, name: str) -> Path:
        """Return the path of the file `name`.

        Raises ModelError if the name is not plain, leads out of the folder, or is not a regular file.
        """
        if not name or name != os.path.basename(name) or name in (".", "..") or "\\" in name or "\0" in name:
            raise ModelError(
                f"{shown(name)} is not a plain file name; files outside {shown(str(self.path))} are never read"
            )
        path = self.path / name
        if not path.is_file():
            state = "is not a regular file in" if path.exists() else "is missing from"
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
        path = self.file(name)
        nbytes = path.stat().st_size
        if nbytes > limit:
            raise ModelError(f"{shown(name)} is {nbytes} bytes; more than {limit} is not plausible for this file")
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise ModelError(f"{shown(name)} is not UTF-8 text ({error.reason} at byte {error.start})") from error


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in `path`. Raises ConfigError if it is anything else."""
    folder = ModelFolder(path.parent)
    return parse_json(folder.text(path.name), name=path.name)


def parse_json(text: str, *, name: str, error: type[MistralMLXError] = ConfigError) -> dict[str, object]:
    """Return the JSON object in `text`; `name` is the file the error is about.

    Raises `error` for broken JSON, NaN or infinity, a repeated key, or a top level that is not an object.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique_keys)
    except (ValueError, RecursionError) as problem:
        raise error(f"{shown(name)} is not valid JSON: {shown(str(problem), limit=120)}") from problem
    if not isinstance(value, dict):
        raise error(f"{shown(name)} must hold a JSON object, not {type(value).__name__}")
    return value


def _refuse_constant(word: str) -> Callable[[], None]:
    raise ValueError(f"{word} is not a number JSON allows")


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        seen: set[str] = set()
        repeated = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {shown(repeated)} stands there twice")
    return found

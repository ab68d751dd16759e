"""A model folder as untrusted data: plain file names, confined paths and bounded sizes."""

import os
from pathlib import Path

from mistral_mlx.errors import ModelError, shown

from .json import MAX_JSON_BYTES, parse_json


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

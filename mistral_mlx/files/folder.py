"""A model folder as untrusted data: plain file names, confined paths and bounded sizes."""

import os
import re
from pathlib import Path

from mistral_mlx.errors import ModelError, shown

from .json import MAX_JSON_BYTES, parse_json

# Of huggingface_hub 2.0 and later (utils/_shared_blobs.py).
SHARED_MARKER, SHARED_VERSION = ".huggingface-shared-blobs", b"1\n"
SHARED_BLOB = re.compile(r"[0-9a-f]{2}/[0-9a-f]{64}", re.ASCII)


class ModelFolder:
    """A folder whose files can be opened only by plain names, and only inside it.

    Hub caches store a snapshot as symbolic links into a sibling folder ``blobs``, and huggingface_hub from 2.0 on links
    from there to blobs that all models of the cache share. So a link may lead anywhere below the folder itself, into
    ``../../blobs``, or to a shared blob; any other link is refused.

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
        if not (target.is_relative_to(root) or target.is_relative_to(blobs) or _is_shared_blob(target, root)):
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
        raise ModelError(f"{shown(name)} is {nbytes:,} bytes; more than {limit:,} is not plausible for this file")


def _is_shared_blob(target: Path, snapshot: Path) -> bool:
    """Whether `target` is a blob that the models of a hub cache share, and `snapshot` one of a model there.

    ``CACHE/models--X/snapshots/REV`` belongs to ``CACHE/blobs/xx/<64 hex digits>``, a folder that a file marks as such.
    """
    model = snapshot.parent.parent
    shared = model.parent / "blobs"
    if snapshot.parent.name != "snapshots" or not model.name.startswith("models--"):
        return False
    if not target.is_relative_to(shared) or not SHARED_BLOB.fullmatch(target.relative_to(shared).as_posix()):
        return False
    marker = shared / SHARED_MARKER
    try:
        is_small = not marker.is_symlink() and marker.is_file() and marker.stat().st_size == len(SHARED_VERSION)
        return is_small and marker.read_bytes() == SHARED_VERSION
    except OSError:
        return False


def read_json(path: Path) -> dict[str, object]:
    """Return the JSON object in `path`. Raises ConfigError if it is anything else."""
    folder = ModelFolder(path.parent)
    return parse_json(folder.text(path.name), name=path.name)

"""The note that `pull` leaves in a model's folder: which model it is, at which commit, and which files were fetched."""

import json
from collections.abc import Mapping
from pathlib import Path

from mistral_mlx.errors import MistralMLXError
from mistral_mlx.files.folder import read_json

from .repository import Repository

RECORD_NAME = "pulled.json"

Patterns = list[list[str]]  # of file names: those to include, and those to exclude


def write_record(folder: Path, repository: Repository, files: Mapping[str, int], patterns: Patterns) -> None:
    """Write the note: `files` are names and sizes, and were chosen by `patterns`."""
    record = {
        "repository": str(repository.id),
        "commit": repository.commit,
        "licence": repository.licence,
        "patterns": patterns,
        "files": dict(files),
    }
    (folder / RECORD_NAME).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def was_pulled(folder: Path) -> bool:
    """Return whether `pull` made `folder`."""
    return _read(folder) is not None


def pulled_from(folder: Path) -> object:
    """Return the ``ORG/REPO`` from which `pull` made `folder`; None if it did not."""
    record = _read(folder)
    return record.get("repository") if record else None


def read_record(folder: Path) -> tuple[object, dict[str, object]]:
    """Return the commit that `pull` fetched into `folder`, or None, and the files with their sizes."""
    record = _read(folder) or {}
    files = record.get("files")
    return record.get("commit"), files if isinstance(files, dict) else {}


def is_current(folder: Path, repository: Repository, patterns: Patterns) -> bool:
    """Return whether `folder` holds this commit, fetched with the same patterns, and each of its files in full."""
    record = _read(folder)
    if record is None or (record["commit"], record.get("patterns")) != (repository.commit, patterns):
        return False
    files = record.get("files")
    if not isinstance(files, dict) or not files:
        return False
    return all((folder / name).is_file() and (folder / name).stat().st_size == n for name, n in files.items())


def _read(folder: Path) -> dict[str, object] | None:
    try:
        record = read_json(folder / RECORD_NAME)
    except (MistralMLXError, OSError):
        return None
    return record if "commit" in record else None

"""Finds models in the folder of LM Studio: ``models/ORG/REPO``, with safetensors or GGUF files.

Where it lies is what LM Studio's own command line reads (lmstudio-ai: findLMStudioHome, lms/src/modelsFolder.ts).
"""

import os
from collections.abc import Iterator
from pathlib import Path

from mistral_mlx.errors import ModelError
from mistral_mlx.files.json import parse_json

from .hub.repo_id import parse_repo_id
from .on_disk import OnDisk, absolute, confined, folder_on_disk, names_in
from .small_file import small_text

PLACE = "LM Studio"
POINTER = "~/.lmstudio-home-pointer"  # a file with the path of the home
HOMES = ("~/.lmstudio", "~/.cache/lm-studio")
MAX_PATH_BYTES = 4096


def find(name: str) -> OnDisk | None:
    """Return the model ``ORG/REPO``; None if LM Studio does not have it.

    Raises ModelError if it is reached by a link, or its index is damaged.
    """
    repo = parse_repo_id(name)
    if repo is None or repo.revision is not None:
        return None
    for root in _folders():
        path = confined(root, repo.organisation, repo.repository)
        if path.is_dir():
            return folder_on_disk(name, PLACE, path)
    return None


def names() -> Iterator[str]:
    """Yield the names of the models."""
    for root in _folders():
        for organisation in names_in(root):
            for repository in names_in(root / organisation):
                name = f"{organisation}/{repository}"
                if parse_repo_id(name) is not None and (root / name).is_dir():
                    yield name


def _folders() -> list[Path]:
    """Return the folders of models that there are."""
    pointed = list(_read(Path(os.path.expanduser(POINTER)), MAX_PATH_BYTES))
    homes = dict.fromkeys(path for text in (*pointed, *HOMES) for path in absolute(text))
    return [path for path in dict.fromkeys(folder for home in homes for folder in _folders_of(home)) if path.is_dir()]


def _folders_of(home: Path) -> Iterator[Path]:
    for text in _read(home / "settings.json"):
        try:
            chosen = parse_json(text, name="settings.json", error=ModelError).get("downloadsFolder")
        except ModelError:  # LM Studio, too, goes on without it
            continue
        if isinstance(chosen, str):
            yield from absolute(chosen)
    yield home / "models"


def _read(path: Path, limit: int | None = None) -> Iterator[str]:
    """Yield the text of a setting, if it can be read."""
    try:
        text = small_text(path) if limit is None else small_text(path, limit)
    except ModelError:
        return
    if text is not None:
        yield text

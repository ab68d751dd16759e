"""A model that another program has on this disk. What is there is untrusted, and links to it are not followed."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from itertools import islice
from pathlib import Path

from mistral_mlx.errors import ModelError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import SINGLE_NAME, weight_map

NATIVE = ("params.json", "consolidated.safetensors")
PICKLES = (".bin", ".pt", ".pth")
MAX_ENTRIES = 1000  # of a folder that is listed
RUNS, CONVERT, INCOMPLETE, REFUSED = "runs", "convert first", "incomplete", "refused"  # what can be done with a model


class Layout(Enum):
    """How a model is stored."""

    HUGGING_FACE = "in Hugging Face's layout"
    NATIVE = "in Mistral's own layout"
    GGUF = "as a GGUF file"


@dataclass(frozen=True)
class OnDisk:
    """A model under the name that finds it again."""

    name: str
    place: str  # whose it is
    path: Path  # a folder, or a GGUF file
    layout: Layout
    missing: str = ""  # a file without which the model cannot be used


def folder_on_disk(name: str, place: str, path: Path) -> OnDisk:
    """Return the model in the folder `path`. Raises ModelError if its index cannot be read."""
    folder = ModelFolder(path)
    hugging_face, native = (_missing(folder, *files) for files in (("config.json", SINGLE_NAME), NATIVE))
    if not hugging_face:
        return OnDisk(name, place, path, Layout.HUGGING_FACE)
    if not native:
        return OnDisk(name, place, path, Layout.NATIVE)
    if any(file.endswith(".gguf") for file in names_in(path)):
        return OnDisk(name, place, path, Layout.GGUF)
    if folder.has(NATIVE[0]) and not folder.has("config.json"):
        return OnDisk(name, place, path, Layout.NATIVE, native)
    return OnDisk(name, place, path, Layout.HUGGING_FACE, hugging_face)


def _missing(folder: ModelFolder, config: str, weights: str) -> str:
    """Return the first file of a layout that is not in `folder`; empty if all are."""
    if not folder.has(config):
        return config
    index = f"{weights}.index.json"
    if folder.has(index):
        files = sorted(set(map(str, weight_map(folder, index).values())))
    else:
        files = [weights]
    missing = next((file for file in files if not folder.has(file)), "")
    if missing == weights and any(file.endswith(PICKLES) for file in names_in(folder.path)):
        return ""  # nothing is missing: who loads it says what is wrong with pickles
    return missing


def names_in(folder: Path) -> list[str]:
    """Return the names in `folder`, at most MAX_ENTRIES of them; none if it cannot be listed."""
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in islice(entries, MAX_ENTRIES))
    except OSError:
        return []


def confined(root: Path, *parts: str) -> Path:
    """Return the path of `parts` below `root`. Raises ModelError if one of them is a link."""
    path = root.joinpath(*parts)
    if os.path.realpath(path) != os.path.join(os.path.realpath(root), *parts):
        raise ModelError(
            f"{shown(str(path), limit=200)} is reached by a link, which is not followed; give the path of the folder "
            "itself"
        )
    return path


def absolute(text: str) -> Iterator[Path]:
    """Yield the path that a setting of another program gives, if it gives an absolute one."""
    path = os.path.expanduser(text.strip())
    if os.path.isabs(path) and "\0" not in path:
        yield Path(path)

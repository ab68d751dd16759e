"""Finds models in the folder of Ollama: a manifest names the blob that is a GGUF file.

``manifests/HOST/NAMESPACE/MODEL/TAG`` is JSON; in ``manifests-v2`` it is a link to a blob, and it may be a list of
manifests for several engines (ollama/ollama: types/model/name.go, manifest/paths.go, manifest/manifest.go).
"""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from mistral_mlx.errors import ModelError, shown
from mistral_mlx.files.json import parse_json

from .on_disk import Layout, OnDisk, confined, names_in
from .small_file import small_text

PLACE = "Ollama"
PUBLIC = ("registry.ollama.ai", "ollama.com")  # two names of one registry
LIBRARY, LATEST = "library", "latest"
STORES = ("manifests-v2", "manifests")
OF_SERVICE = Path("/usr/share/ollama/.ollama/models")  # where Ollama's installer for Linux lets its service keep them
MODEL_TYPE = "application/vnd.ollama.image.model"
TENSOR_TYPE = "application/vnd.ollama.image.tensor"
DIGEST = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
BLOB = re.compile(r"sha256-[0-9a-f]{64}", re.ASCII)
PART = re.compile(r"\w[\w.-]{0,79}", re.ASCII)
HOST = re.compile(r"\w[\w.:-]{0,349}", re.ASCII)
MAX_ENGINES = 16


class Name(NamedTuple):
    """The full name of a model."""

    host: str
    namespace: str
    model: str
    tag: str

    def __str__(self) -> str:
        """Return the name as Ollama shows it."""
        parts = [self.host, self.namespace, f"{self.model}:{self.tag}"]
        if self.host in PUBLIC:
            del parts[: 2 if self.namespace == LIBRARY else 1]
        return "/".join(parts)


def parse_name(text: str) -> Name | None:
    """Return the name in `text`, ``[[HOST/]NAMESPACE/]MODEL[:TAG]``; None if it is none."""
    path, colon, tag = text.rpartition(":")
    if not colon or "/" in tag:
        path, tag = text, LATEST
    *before, model = path.split("/")
    if len(before) > 2:
        return None
    host, namespace = [PUBLIC[0], LIBRARY][: 2 - len(before)] + before
    are_valid = HOST.fullmatch(host) and all(PART.fullmatch(part) for part in (namespace, model, tag))
    return Name(host, namespace, model, tag) if are_valid else None


def find(name: str) -> OnDisk | None:
    """Return the GGUF file of the model `name`; None if Ollama does not have it.

    Raises ModelError if its manifest is damaged, names no GGUF file, or leads out of Ollama's folder.
    """
    parsed = parse_name(name)
    if parsed is None:
        return None
    for root in _roots():
        manifest = _manifest(root, parsed)
        if manifest is not None:
            return OnDisk(name, PLACE, _model_blob(root, manifest, name), Layout.GGUF)
    return None


def names() -> Iterator[str]:
    """Yield the names of the models."""
    found: dict[str, None] = {}
    for root in _roots():
        for store in STORES:
            for parts in _files(root / store, depth=len(Name._fields)):
                name = str(Name(*parts))
                if parse_name(name) is not None:
                    found[name] = None
    yield from found


def is_here() -> bool:
    """Return whether Ollama keeps models on this disk."""
    return bool(_roots())


def _roots() -> list[Path]:
    if named := os.environ.get("OLLAMA_MODELS", "").strip(" \"'"):
        roots = [Path(named)]
    else:
        roots = [Path(os.path.expanduser("~/.ollama/models")), *([OF_SERVICE] if sys.platform == "linux" else [])]
    return [root for root in roots if root.is_dir()]


def _manifest(root: Path, name: Name) -> Mapping[str, object] | None:
    hosts = PUBLIC if name.host in PUBLIC else (name.host,)
    for store in STORES:
        for host in hosts:
            text = _named_text(root, store, host, *name[1:])
            if text is not None:
                return _engine_manifest(root, _parsed(text, str(name)), str(name))
    return None


def _named_text(root: Path, *parts: str) -> str | None:
    """Return the text of a manifest. It may be a link to a blob; any other link is refused."""
    folder = confined(root, *parts[:-1])
    path = folder / parts[-1]
    if not path.is_symlink():
        return small_text(path)
    target = Path(os.path.realpath(path))
    if target.parent != Path(os.path.realpath(root)) / "blobs" or not BLOB.fullmatch(target.name):
        raise ModelError(f"{shown(str(path), limit=200)} is a link out of Ollama's blobs, which is not followed")
    return small_text(target)


def _engine_manifest(root: Path, manifest: Mapping[str, object], name: str) -> Mapping[str, object]:
    """Return `manifest`, or of a list of them the first that has a GGUF file."""
    listed = manifest.get("manifests")
    if not isinstance(listed, list):
        return manifest
    for child in listed[:MAX_ENGINES]:
        if isinstance(child, dict) and isinstance(child.get("digest"), str) and not child.get("layers"):
            text = small_text(_blob(root, child["digest"], name))
            child = _parsed(text or "", name)
        if isinstance(child, dict) and MODEL_TYPE in _layers(child):
            return child
    return {"layers": [{"mediaType": TENSOR_TYPE, "digest": ""}]}


def _model_blob(root: Path, manifest: Mapping[str, object], name: str) -> Path:
    layers = _layers(manifest)
    if MODEL_TYPE not in layers:
        kind = "tensors of its own engine" if TENSOR_TYPE in layers else "no model in its manifest"
        raise ModelError(f"{shown(name)} in {PLACE} has {kind}, not a GGUF file; it cannot be used")
    path = _blob(root, layers[MODEL_TYPE], name)
    if not path.is_file():
        raise ModelError(f"{shown(name)} is in {PLACE}, but {shown(path.name)} is missing; 'ollama pull' fetches it")
    return path


def _layers(manifest: Mapping[str, object]) -> dict[str, str]:
    """Return the digest of the first layer of each type."""
    layers = manifest.get("layers")
    found: dict[str, str] = {}
    for layer in layers if isinstance(layers, list) else ():
        if isinstance(layer, dict) and isinstance(layer.get("mediaType"), str):
            found.setdefault(layer["mediaType"], str(layer.get("digest", "")))
    return found


def _blob(root: Path, digest: str, name: str) -> Path:
    match = DIGEST.fullmatch(digest)
    if match is None:
        raise ModelError(f"the manifest of {shown(name)} in {PLACE} has {shown(digest)}, which is no digest")
    return confined(root, "blobs", f"sha256-{match[1]}")


def _parsed(text: str, name: str) -> dict[str, object]:
    return parse_json(text, name=f"the manifest of {name}", error=ModelError)


def _files(folder: Path, *, depth: int) -> Iterator[tuple[str, ...]]:
    """Yield the names on the way to everything `depth` levels below `folder`."""
    for name in names_in(folder):
        if depth == 1:
            yield (name,)
        elif not (folder / name).is_symlink():
            yield from ((name, *rest) for rest in _files(folder / name, depth=depth - 1))

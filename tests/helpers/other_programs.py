"""Lays out models as Hugging Face's tools, LM Studio and Ollama keep them on the disk."""

import hashlib
import json
import shutil
from pathlib import Path

COMMIT = "c0ffee" + "0" * 34


def hub_snapshot(cache, name, folder, *, commit=COMMIT, ref="main"):
    """Put the files of `folder` into a hub cache, as links to blobs; return the snapshot."""
    repository = cache / f"models--{name.replace('/', '--')}"
    snapshot, blobs = repository / "snapshots" / commit, repository / "blobs"
    for made in (snapshot, blobs, repository / "refs"):
        made.mkdir(parents=True, exist_ok=True)
    for file in Path(folder).iterdir():
        shutil.copy(file, blobs / file.name)
        (snapshot / file.name).symlink_to(f"../../blobs/{file.name}")
    if ref is not None:
        (repository / "refs" / ref).parent.mkdir(parents=True, exist_ok=True)
        (repository / "refs" / ref).write_text(commit)
    return snapshot


def studio_model(home, name, *files):
    """Put copies of `files` into the folder of a model in LM Studio's home; return it."""
    model = home / "models" / name
    model.mkdir(parents=True)
    for file in files:
        shutil.copy(file, model / file.name)
    return model


def ollama_blob(models, data):
    """Put bytes into Ollama's blobs; return their digest."""
    digest = hashlib.sha256(data).hexdigest()
    (models / "blobs").mkdir(parents=True, exist_ok=True)
    (models / "blobs" / f"sha256-{digest}").write_bytes(data)
    return f"sha256:{digest}"


def ollama_manifest(digest, kind="application/vnd.ollama.image.model"):
    template = {"mediaType": "application/vnd.ollama.image.template", "digest": "sha256:" + "0" * 64}
    return {"schemaVersion": 2, "layers": [template, {"mediaType": kind, "digest": digest}]}


def ollama_model(models, path, gguf):
    """Put the bytes `gguf` under the name HOST/NAMESPACE/MODEL/TAG; return the manifest."""
    manifest = models / "manifests" / path
    manifest.parent.mkdir(parents=True, exist_ok=True)
    manifest.write_text(json.dumps(ollama_manifest(ollama_blob(models, gguf))))
    return manifest

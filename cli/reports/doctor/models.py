"""The checks of ``doctor`` on registered models, and on the models that other programs keep on this disk."""

import os
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.models.hub import settings
from mistral_mlx.errors import ModelError, counted, shown

from .findings import Findings
from .installation import why

MAX_COUNTED = 1000


def registered(found: Findings) -> None:
    """Say which models are registered, and which of them are gone, damaged or unsupported."""
    try:
        names = registry.registered()
    except ModelError as error:
        found.fault(str(error))
        return
    records: list[dict[str, object]] = [{"name": name, "path": str(path)} for name, path in sorted(names.items())]
    found.facts["registered"] = records
    inspect = _inspector(found)
    for record in records:
        record["error"] = _fault_of(str(record["name"]), inspect)
    for record in records:
        if record["error"]:
            found.fault(f"{shown(record['name'])} cannot be used: {record['error']}")
    if usable := [shown(record["name"]) for record in records if not record["error"]]:
        found.ok(f"{len(usable)} of {counted(len(records), 'registered model')} can be used: {', '.join(usable)}")
    elif not records:
        found.note(f"none is registered; 'mistral-mlx pull {registry.PULLABLE[0]}' fetches one")


def caches(found: Findings) -> None:
    """Say how many models other programs keep, without looking into them."""
    ollama = Path(os.environ.get("OLLAMA_MODELS") or os.path.expanduser("~/.ollama/models"))
    places = {
        "Hugging Face": (settings.cache(), "models--*"),
        "LM Studio": (Path(os.path.expanduser("~/.lmstudio/models")), "*/*/"),
        "Ollama": (ollama, "manifests/*/*/*/*"),
    }
    texts = []
    for name, (path, pattern) in places.items():
        n = _count(path.glob(pattern)) if path.is_dir() else None
        found.facts[name] = {"path": str(path), "models": n}
        texts.append(f"{name} {'not found' if n is None else counted(n, 'model')}")
    found.ok(", ".join(texts))


def _inspector(found: Findings) -> Callable[[Path], object] | None:
    """Return what raises ModelError for a folder that cannot be used; None if nothing can tell."""
    try:
        from mistral_mlx.files.folder import ModelFolder
        from mistral_mlx.model.loading import inspect_model
    except Exception as error:  # MLX or the kernels, which have their own lines
        found.note(f"only looked for, and not inspected: {why(error)}")
        return None
    return lambda path: inspect_model(ModelFolder(path))


def _fault_of(name: str, inspect: Callable[[Path], object] | None) -> str | None:
    """Return what is wrong with a registered model, and what to do."""
    try:
        path = registry.located(name)
        if inspect is not None:
            inspect(path)
    except (ModelError, OSError) as error:
        return str(error)
    return None


def _count(found: Iterable[Path]) -> int:
    """Return how many there are, MAX_COUNTED at most; those that cannot be listed do not count."""

    def listed() -> Iterator[Path]:
        try:
            yield from found
        except OSError:
            return

    return sum(1 for _ in islice(listed(), MAX_COUNTED))

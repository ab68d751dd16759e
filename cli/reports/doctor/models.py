"""The checks of ``doctor`` on registered models, and on the models that other programs keep on this disk."""

from collections.abc import Callable
from itertools import islice
from pathlib import Path

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.models.found import PLACES
from mistral_mlx.cli.models.names import file_name
from mistral_mlx.cli.models.on_disk import CONVERT, RUNS
from mistral_mlx.cli.models.small_file import is_gguf
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
    state = _examiner(found)
    for record in records:
        record["state"], record["error"] = _state(str(record["name"]), state)
        if record["error"]:
            found.fault(f"{shown(record['name'])} cannot be used: {record['error']}")
        elif record["state"] == CONVERT:
            name = shown(record["name"])
            found.note(f"{name} has to be converted: mistral-mlx convert {name} {file_name(name)}-mlx")
    if usable := [
        shown(record["name"]) for record in records if record["state"] in (RUNS, None) and not record["error"]
    ]:
        found.ok(f"{len(usable)} of {counted(len(records), 'registered model')} can be used: {', '.join(usable)}")
    elif not records:
        found.note(f"none is registered; 'mistral-mlx pull {registry.PULLABLE[0]}' fetches one")


def caches(found: Findings) -> None:
    """Say how many models other programs keep, without looking into them."""
    texts = []
    for place in PLACES:
        found.facts[place.name] = n = sum(1 for _ in islice(place.names(), MAX_COUNTED))
        texts.append(f"{place.name} {counted(n, 'model')}")
    found.ok(", ".join(texts))


def _examiner(found: Findings) -> Callable[[str, Path], tuple[object, object]] | None:
    """Return what tells the state of a registered model and why it is refused; None if nothing can tell."""
    try:
        from mistral_mlx.cli.reports.discovered import of_registered
    except Exception as error:  # MLX or the kernels, which have their own lines
        found.note(f"only looked for, and not inspected: {why(error)}")
        return None

    def examine(name: str, path: Path) -> tuple[object, object]:
        if is_gguf(path):  # the library that reads one looks for network interfaces when it is imported
            return CONVERT, None
        record = of_registered(name, path)
        return record["state"], record["why"]

    return examine


def _state(name: str, examine: Callable[[str, Path], tuple[object, object]] | None) -> tuple[object, object]:
    """Return the state of a registered model, None if nothing can tell, and what is wrong with it."""
    try:
        path = registry.located(name)
    except (ModelError, OSError) as error:
        return None, str(error)
    return examine(name, path) if examine else (None, None)

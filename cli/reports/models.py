"""The report of ``models``: what the headers of each registered model say, as a table or as JSON."""

import math
from pathlib import Path

from mistral_mlx.cli.models.registry import resolve
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import gigabytes, print_json, table
from mistral_mlx.errors import ModelError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.args import expected_shapes
from mistral_mlx.model.loading import inspect_model

TITLES = ("NAME", "SIZE", "BITS", "WINDOW", "PATH")


def describe(name: str, path: Path) -> dict[str, object]:
    """Return the facts in the headers of the folder; if it does not run, the error, and what --discover says."""
    record: dict[str, object] = {"name": name, "path": str(path)}
    try:
        inspected = inspect_model(ModelFolder(path))
    except ModelError as error:
        from .discovered import of_registered  # which imports the converter

        known = of_registered(name, path)
        facts = {"state": known["state"], "why": known["why"], "weight_bytes": known["bytes"]}
        return record | {"error": str(error), **facts}
    args, entries = inspected.args, inspected.entries
    nbytes = sum(entry.nbytes for entry in entries.values())
    parameters = sum(math.prod(shape) for key, shape in expected_shapes(args).items() if key in entries)
    windows = {window for window in args.sliding_window if window is not None}
    return record | {
        "parameters": parameters,
        "weight_bytes": nbytes,
        "bits": args.quantization.usual.bits if args.quantization else None,
        "bits_per_weight": round(8 * nbytes / parameters, 3),
        "window": min(windows) if windows else None,
        "context": args.max_position_embeddings,
    }


def checked(model: str) -> Path:
    """Return the folder of `model`, a path or a name. Raises ModelError if it cannot run, or is no model at all."""
    path = resolve(model)
    inspect_model(ModelFolder(path))
    return path


def show(records: list[dict[str, object]], *, as_json: bool) -> None:
    """Write the facts of all models to stdout; say so if there is none."""
    if as_json:
        print_json(records)
    elif records:
        write_text(table([TITLES, *map(_row, records)]))
    else:
        Notes().always("no model is registered; 'mistral-mlx pull demo' fetches one")


def _row(record: dict[str, object]) -> tuple[str, str, str, str, str]:
    name, path = str(record["name"]), str(record["path"])
    nbytes = record["weight_bytes"]
    size = gigabytes(nbytes) if isinstance(nbytes, int) else "-"
    if "error" in record:
        why = f": {record['why']}" if record["why"] else ""
        return name, size, "-", "-", f"{path} ({record['state']}{why})"
    window = f"{record['window']:,}" if record["window"] else f"none ({record['context']:,})"
    return name, size, f"{record['bits_per_weight']:.2f}", window, path

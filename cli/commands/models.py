"""``models``: the registered models, as a table or as JSON."""

import json
from pathlib import Path

from mistral_mlx.cli.models.registry import registered
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.streams import note, write_text


def models(as_json: shared.Json = False) -> None:
    """List the registered models with size, bits per weight, window and path."""
    records = [describe(name, path) for name, path in sorted(registered().items())]
    if as_json:
        write_text(json.dumps(records, ensure_ascii=False) + "\n")
    elif records:
        write_text(_table(records))
    else:
        note("no model is registered; 'mistral-mlx pull demo' fetches one")


def describe(name: str, path: Path) -> dict[str, object]:
    """Return what the headers in the folder say; what is wrong with it is one of the facts, "error"."""
    import math

    from mistral_mlx.errors import ModelError
    from mistral_mlx.files.folder import ModelFolder
    from mistral_mlx.model.args import expected_shapes
    from mistral_mlx.model.loading import inspect_model

    record: dict[str, object] = {"name": name, "path": str(path)}
    try:
        args, entries = inspect_model(ModelFolder(path))
    except ModelError as error:
        return record | {"error": str(error)}
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


def _table(records: list[dict[str, object]]) -> str:
    rows = [("NAME", "SIZE", "BITS", "WINDOW", "PATH"), *map(_row, records)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[4]]).rstrip() + "\n"
        for row in rows
    )


def _row(record: dict[str, object]) -> tuple[str, str, str, str, str]:
    name, path = inert(str(record["name"])), inert(str(record["path"]))
    if "error" in record:
        return name, "-", "-", "-", f"{path} (unusable: {inert(str(record['error']))})"
    nbytes = record["weight_bytes"]
    assert isinstance(nbytes, int)
    size = f"{nbytes / 1e9:.2f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.1f} MB"
    window = f"{record['window']:,}" if record["window"] else f"none ({record['context']:,})"
    return name, size, f"{record['bits_per_weight']}", window, path

"""The report of ``models --discover``: the models of all programs on this disk, and whether they run."""

from collections.abc import Iterable
from pathlib import Path

from mistral_mlx.cli.models import found
from mistral_mlx.cli.models.fetched import nameless, nbytes_of
from mistral_mlx.cli.models.on_disk import CONVERT, INCOMPLETE, REFUSED, RUNS, Layout, OnDisk, folder_on_disk
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import gigabytes, print_json, table
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.errors import MistralMLXError, ModelError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.loading import inspect_model

TITLES = ("NAME", "WHERE", "SIZE", "FAMILY", "STATE")
REGISTERED = "registered"

Record = dict[str, object]


def describe(registered: Iterable[tuple[str, Path]]) -> list[Record]:
    """Return the facts about the registered models, and about those of other programs."""
    known = dict(registered)
    names = {str(path): name for name, path in known.items()}
    records = []
    for model in found.everything():
        record = _record(model)
        record[REGISTERED] = names.get(_real(record["path"]))
        records.append(record)
    seen = {record[REGISTERED] for record in records}
    own = [of_registered(name, path) for name, path in sorted(known.items()) if name not in seen]
    return [*own, *(_nameless(path) for path in nameless(names)), *records]


def of_registered(name: str, path: Path) -> Record:
    """Return the facts about a registered model."""
    try:
        model: OnDisk | found.Refused = folder_on_disk(name, REGISTERED, path)
    except (ModelError, OSError) as error:
        model = found.Refused(name, REGISTERED, str(error) if path.exists() else "the folder is gone")
    return _record(model) | {REGISTERED: name}


def show(records: list[Record], *, as_json: bool) -> None:
    """Write the facts to stdout; say so if there are none."""
    if as_json:
        print_json(records)
    elif records:
        write_text(table([TITLES, *map(_row, records)], max_width=60))
    else:
        Notes().always(f"no model is on this disk ({found.looked_in()}); 'mistral-mlx pull demo' fetches one")


def _nameless(path: Path) -> Record:
    """Return the facts about a folder of this program that has no name any more, or not yet."""
    record = of_registered(str(path), path) | {"where": "no name", REGISTERED: None}
    if path.name.startswith("."):
        record |= {"bytes": nbytes_of(path), "state": INCOMPLETE, "why": "pull was interrupted"}
    return record


def _record(model: OnDisk | found.Refused) -> Record:
    record: Record = {"name": model.name, "where": model.place, "path": None, "bytes": None, "family": None}
    if isinstance(model, found.Refused):
        return record | {"state": REFUSED, "why": model.why}
    record |= {"path": str(model.path), "family": _family(model)}
    if model.missing:
        return record | {"state": INCOMPLETE, "why": f"{model.missing} is missing"}
    try:
        return record | _facts(model)
    except (MistralMLXError, OSError) as error:
        return record | {"state": REFUSED, "why": str(error)}


def _family(model: OnDisk) -> str | None:
    """Return what config.json calls the family, which need not be one that is supported."""
    try:
        family = ModelFolder(model.path).json("config.json").get("model_type")
    except ModelError:
        return None
    return family if isinstance(family, str) else None


def _facts(model: OnDisk) -> Record:
    """Return what the headers say. Raises MistralMLXError if the model neither runs nor can be converted."""
    if model.layout is Layout.HUGGING_FACE:
        try:
            inspected = inspect_model(ModelFolder(model.path))
        except ModelError:
            pass  # AWQ, GPTQ, FP8: the converter knows more
        else:
            nbytes = sum(entry.nbytes for entry in inspected.entries.values())
            return {"bytes": nbytes, "family": inspected.args.model_type, "state": RUNS, "why": None}
    source = open_source(model.path)
    return {"bytes": source.nbytes, "family": source.args.model_type, "state": CONVERT, "why": None}


def _real(path: object) -> str:
    return str(Path(path).resolve()) if isinstance(path, str) else ""


def _row(record: Record) -> tuple[str, str, str, str, str]:
    name, where, nbytes, family, state, why = (
        record[key] for key in ("name", "where", "bytes", "family", "state", "why")
    )
    if record[REGISTERED] and where != REGISTERED:
        where = f"{where}, {REGISTERED}" + (f" as {record[REGISTERED]}" if record[REGISTERED] != name else "")
    size = gigabytes(nbytes) if isinstance(nbytes, int) else "-"
    return str(name), str(where), size, str(family or "-"), f"{state}: {why}" if why else str(state)

"""``pull``: says what is known of a model on a hub, and what to do with it when it is here."""

import shlex

from mistral_mlx.cli.models.hub.outlook import Outlook
from mistral_mlx.cli.models.names import file_name
from mistral_mlx.cli.models.on_disk import CONVERT, RUNS
from mistral_mlx.cli.models.pull import FETCHED, Pulled
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.table import print_json

from .discovered import of_registered


def show_outlook(outlook: Outlook, notes: Notes, *, as_json: bool) -> None:
    """Write what is known of a model, with its files: as JSON to stdout, or for people to stderr."""
    if as_json:
        print_json(outlook.as_dict())
        return
    notes.report([*outlook.lines(), *(f"  {nbytes:>15,}  {name}" for name, nbytes in outlook.files.items())])


def show_result(name: str, pulled: Pulled, notes: Notes, *, as_json: bool) -> None:
    """Write where the model is, and what comes next."""
    path = pulled.path
    record = of_registered(name, path)
    if as_json:
        facts = {key: record[key] for key in ("name", "path", "bytes", "family", "state", "why")}
        print_json(facts | {"path": str(path), "fetched": pulled.state == FETCHED})
    typed = shlex.quote(name)
    notes.say(f"{name} {pulled.state}: {path}")
    if record["state"] == RUNS:
        notes.say(f"try it: mistral-mlx chat -m {typed}")
    elif record["state"] == CONVERT:
        bits = "" if next(path.glob("*.gguf"), None) else " --bits 4"  # most GGUF files have few bits already
        notes.say(f"convert it: mistral-mlx convert {typed} {file_name(name)}-mlx{bits}")
    else:
        notes.say(f"it cannot be used: {record['why']}")

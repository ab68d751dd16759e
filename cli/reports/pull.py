"""``pull``: says what is known of a model on a hub, and what to do with it when it is here."""

from pathlib import Path

from mistral_mlx.cli.models.hub.outlook import Outlook
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.table import print_json
from mistral_mlx.errors import ModelError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.loading import inspect_model


def show_outlook(outlook: Outlook, notes: Notes, *, as_json: bool) -> None:
    """Write what is known of a model, with its files: as JSON to stdout, or for people to stderr."""
    if as_json:
        print_json(outlook.as_dict())
        return
    notes.report([*outlook.lines(), *(f"  {nbytes:>15,}  {name}" for name, nbytes in outlook.files.items())])


def show_result(name: str, path: Path, outlook: Outlook | None, notes: Notes, *, as_json: bool) -> None:
    """Write where the model is; `outlook` is None for a model that was here already."""
    problem = _problem(path)
    if as_json:
        print_json({"name": name, "path": str(path), "was_here": outlook is None, "runs": problem is None})
    state = "is up to date" if outlook is None else "is ready"
    notes.say(f"{name} {state}: {path}")
    if problem is None:
        notes.say(f"try it: mistral-mlx chat -m {name}")
    else:
        target = f"{name.rpartition('/')[2]}-4bit"
        notes.say(f"it cannot run as it is ({problem}); convert it: mistral-mlx convert {name} {target} --bits 4")


def _problem(path: Path) -> str | None:
    try:
        inspect_model(ModelFolder(path))
    except ModelError as error:
        return str(error)
    return None

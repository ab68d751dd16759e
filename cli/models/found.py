"""Finds models by name in the folders of other programs on this disk. It asks no network."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from mistral_mlx.errors import ModelError, shown

from . import lm_studio, ollama
from .hub import settings, snapshots
from .hub.repo_id import parse_repo_id
from .names import file_name
from .on_disk import MAX_ENTRIES, Layout, OnDisk


class Place(NamedTuple):
    """A program that keeps models, and how they are found."""

    name: str
    find: Callable[[str], OnDisk | None]
    names: Callable[[], Iterator[str]]


PLACES = (  # in the order in which they are asked
    Place(snapshots.PLACE, snapshots.find, snapshots.names),
    Place(lm_studio.PLACE, lm_studio.find, lm_studio.names),
    Place(ollama.PLACE, ollama.find, ollama.names),
)


class Refused(NamedTuple):
    """A model that the program cannot use, and the reason."""

    name: str
    place: str
    why: str


def find(name: str) -> OnDisk | None:
    """Return the first whole model of this name; None if there is none.

    Raises ModelError if a file of it is missing, or what describes it is damaged or leads out of its folder.
    """
    incomplete, refused = None, None
    for place in PLACES:
        try:
            found = place.find(name)
        except ModelError as error:
            refused = refused or error
            continue
        if found is not None and not found.missing:
            return found
        incomplete = incomplete or found
    if refused is not None:
        raise refused
    if incomplete is not None:
        raise ModelError(
            f"{_whole(name)} in {incomplete.place} is not complete: {shown(incomplete.missing)} is missing from "
            f"{_whole(str(incomplete.path))}; 'mistral-mlx pull {_whole(name)}' fetches it"
        )
    return None


def to_run(name: str) -> OnDisk | None:
    """Return the model if it runs as it is; None if there is none of this name. Raises ModelError as `find` does."""
    found = find(name)
    if found is not None and found.layout is not Layout.HUGGING_FACE:
        raise ModelError(
            f"{_whole(name)} is in {found.place} ({_whole(str(found.path))}), {found.layout.value}; convert "
            f"it first: mistral-mlx convert {_whole(name)} {file_name(name)}-mlx"
        )
    return found


def not_found(name: str, registered: str) -> str:
    """Return the message for a name that is nowhere; `registered` lists the names that are known."""
    if parse_repo_id(name) is not None:
        return f"{_whole(name)} is not on this disk ({looked_in()}); 'mistral-mlx pull {_whole(name)}' fetches it"
    if ollama.parse_name(name) is None:
        return f"no such model directory: {_whole(name)}"
    if "/" in name or ":" in name:
        return f"{_whole(name)} is not on this disk ({looked_in()})"
    asked = f"; {ollama.PLACE} does not have it, either" if ollama.is_here() else ""
    return f"no such model directory or registered name: {shown(name)} (registered: {shown(registered)}){asked}"


def looked_in() -> str:
    """Return in words where models are looked for."""
    cache = _whole(str(settings.cache()))
    return f"looked for in: registered names, this folder, {snapshots.PLACE} {cache}, {lm_studio.PLACE}, {ollama.PLACE}"


def everything() -> Iterator[OnDisk | Refused]:
    """Yield the models of all places, MAX_ENTRIES of each at most. Those that cannot be used are among them."""
    for place in PLACES:
        for name in islice(place.names(), MAX_ENTRIES):
            try:
                found = place.find(name)
            except (ModelError, OSError) as error:
                yield Refused(name, place.name, str(error))
            else:
                if found is not None:
                    yield found


def _whole(text: str) -> str:
    """Return a name that is to be typed again, or a path."""
    return shown(text, limit=300)

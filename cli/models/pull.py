"""``pull ORG/REPO``: fetches a model from a hub, file by file, and registers its name.

The files are gathered in a hidden folder next to the place of the model, ``.NAME.partial``, which takes that place when
it is whole. What a process that was interrupted or killed has gathered is what the next one begins with; each file is
checked by its hash.
"""

import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted
from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.errors import ConversionError, ModelError, OptionError, shown
from mistral_mlx.files.whole import sync_folder

from .folder_lock import locked
from .hub import settings
from .hub.choice import check_patterns
from .hub.gathered import Gathered
from .hub.outlook import Outlook, outlook
from .hub.record import is_current, was_pulled, write_record
from .hub.repo_id import RepoId, is_revision, parse_repo_id
from .hub.repository import Repository, read_repository
from .hub.web import Web
from .registry import home, register, registered

EXAMPLE = "mistralai/Mistral-7B-Instruct-v0.3"
NAME = re.compile(r"\w[\w.-]{0,95}", re.ASCII)
RESERVE_BYTES = 100_000_000  # of the disk, left to others


@dataclass(frozen=True)
class Wanted:
    """What the user asks for: a model, the name under which it is registered, and patterns of file names."""

    repo: RepoId
    name: str
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    @property
    def patterns(self) -> list[list[str]]:
        return [list(self.include), list(self.exclude)]


def wanted(
    model: str, name: str | None, revision: str | None, include: Sequence[str], exclude: Sequence[str]
) -> Wanted:
    """Return what the arguments of the command ask for. Raises OptionError for one that cannot be meant."""
    repo = parse_repo_id(_without_address(model))
    if repo is None:
        raise OptionError(f"{shown(model)} is no name of a model on a hub; give ORG/REPO, such as {EXAMPLE}, or demo")
    if revision is not None:
        if repo.revision is not None or not is_revision(revision):
            raise OptionError(f"--revision is {shown(revision)}; it must be one branch, tag or commit")
        repo = repo._replace(revision=revision)
    if name is not None and not NAME.fullmatch(name):
        raise OptionError(f"the name {shown(name)} cannot be registered; use letters, digits, dots, '-' and '_'")
    check_patterns(include, "--include")
    check_patterns(exclude, "--exclude")
    return Wanted(repo, name or str(repo), include, exclude)


def _without_address(text: str) -> str:
    """Return the name in the address of a model's page; any other text as it is."""
    for address in (settings.endpoint(), settings.HUB, "https://hf.co"):
        if text.startswith(f"{address}/"):
            return text.removeprefix(f"{address}/").removesuffix("/").replace("/tree/", "@")
    return text


def pull(wanted: Wanted, notes: Notes) -> tuple[Path, Outlook | None]:
    """Fetch and register a model; return its folder, and what is known of it, or None if it was here already.

    Raises ConversionError if it cannot be fetched, ModelError if it is not supported. What has arrived stays, and the
    next call goes on from there.
    """
    web, place = _web(notes), _place(wanted.name)
    repository = read_repository(web, wanted.repo)
    found = None
    with _working_folder(place, lambda: notes.say("another process fetches this model; waiting for it")) as folder:
        if is_current(place, repository, wanted.patterns):
            shutil.rmtree(folder)
        else:
            found = _gather(Gathered(web, repository, folder, place), repository, wanted, folder, notes)
            _publish(folder, place)
    register(wanted.name, place)
    return place, found


def look(wanted: Wanted, notes: Notes) -> Outlook:
    """Return what is known of a model without its weights; nothing stays on the disk. Raises as `pull`."""
    web, place = _web(notes), _place(wanted.name)
    repository = read_repository(web, wanted.repo)
    with TemporaryDirectory() as folder:
        return _outlook(Gathered(web, repository, Path(folder), place), repository, wanted)


def _web(notes: Notes) -> Web:
    if settings.is_offline():
        raise OptionError("HF_HUB_OFFLINE is set, and pull needs the network; unset it, or use a model that is here")
    return Web(settings.endpoint(), settings.token(), notes.say)


def _place(name: str) -> Path:
    """Return the folder of the model `name`. Raises OptionError if something else is there or has the name."""
    place = home() / "models" / name.replace("/", "--")
    other = registered().get(name, place)
    if other.is_dir() and other.resolve() != place.resolve():
        raise OptionError(f"the name {shown(name)} is taken by {shown(str(other), limit=200)}; give another one")
    if place.exists() and not was_pulled(place):
        raise OptionError(f"{shown(str(place), limit=200)} was not fetched by this command; give another name")
    return place


@contextmanager
def _working_folder(place: Path, wait: Callable[[], None]) -> Iterator[Path]:
    """Give the folder in which the files for `place` are gathered; no other process uses it meanwhile."""
    folder = place.with_name(f".{place.name}.partial")
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait) as number:
            if folder.is_dir() and folder.stat().st_ino == number:  # or another process has put it at its place
                yield folder
                return


def _gather(gathered: Gathered, repository: Repository, wanted: Wanted, folder: Path, notes: Notes) -> Outlook:
    """Fetch all files into `folder`. An error says what stays of them; nothing does if the model is not supported."""
    try:
        found = _outlook(gathered, repository, wanted)
        notes.report(found.lines())
        _check(found)
        with notes.progress("bytes", has_rate=True) as progress:
            gathered.fetch(progress)
        gathered.finish()
        write_record(folder, repository, gathered.files, wanted.patterns)
        return found
    except ModelError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Interrupted as error:
        error.remark = f"interrupted; {gathered.remark() or 'nothing is here'}"
        raise
    except ConversionError as error:
        raise ConversionError("; ".join(filter(None, (str(error), gathered.remark())))) from error


def _outlook(gathered: Gathered, repository: Repository, wanted: Wanted) -> Outlook:
    folder = gathered.begin(wanted.include, wanted.exclude)
    free = shutil.disk_usage(folder.path).free
    return outlook(repository, gathered.files, folder, gathered.nbytes_before, free)


def _check(found: Outlook) -> None:
    """Raise ModelError for a model that is not supported, ConversionError if the disk has no room for it."""
    if found.verdict == "refused":
        raise ModelError(f"{found.repository} is not supported, and nothing more is fetched: {found.why}")
    needed = found.nbytes - found.nbytes_here + RESERVE_BYTES
    if needed > found.disk_free:
        raise ConversionError(
            f"{gigabytes(needed)} are needed and {gigabytes(found.disk_free)} are free on the disk; make room, or set "
            "MISTRAL_MLX_HOME to a folder on another disk"
        )


def _publish(folder: Path, place: Path) -> None:
    """Put what was gathered at its place, instead of an older commit."""
    old = place.with_name(f".{place.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    sync_folder(folder)
    if place.exists():
        place.rename(old)
    folder.rename(place)
    sync_folder(place.parent)
    shutil.rmtree(old, ignore_errors=True)

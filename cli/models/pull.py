"""``pull ORG/REPO``: fetches a model from a hub, file by file, and registers its name.

The files are gathered in a hidden folder next to the place of the model, ``.NAME.partial``, which takes that place when
it is whole. What a process that was interrupted or killed has gathered is what the next one begins with; each file is
checked by its hash.
"""

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
from .hub import settings, snapshots
from .hub.choice import check_patterns
from .hub.gathered import Gathered
from .hub.outlook import Outlook, outlook
from .hub.record import is_current, pulled_from, was_pulled, write_record
from .hub.repo_id import RepoId, is_revision, parse_repo_id
from .hub.repository import Repository, read_repository
from .hub.web import Web
from .names import check_name
from .registry import check_free, home, register, registered

NONE: list[list[str]] = [[], []]  # patterns
EXAMPLE = "mistralai/Mistral-7B-Instruct-v0.3"
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
    if repo.revision == "main":
        repo = repo._replace(revision=None)
    check_patterns(include, "--include")
    check_patterns(exclude, "--exclude")
    whole = f"{repo}@{repo.revision}" if repo.revision else str(repo)
    return Wanted(repo, check_name(name or whole), include, exclude)


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
    if settings.is_offline():
        return _register_snapshot(wanted, wanted.repo, notes), None
    web = Web(settings.endpoint(), settings.token(), notes.say)
    repository = read_repository(web, wanted.repo)
    at_commit = wanted.repo._replace(revision=repository.commit)
    if wanted.patterns == NONE and _snapshot(at_commit) is not None:
        return _register_snapshot(wanted, at_commit, notes), None
    place, found = _place(wanted), None
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
    if settings.is_offline():
        raise OptionError("HF_HUB_OFFLINE is set, and --dry-run asks the hub; unset it")
    web = Web(settings.endpoint(), settings.token(), notes.say)
    repository = read_repository(web, wanted.repo)
    with TemporaryDirectory() as folder:
        return _outlook(Gathered(web, repository, Path(folder), _place(wanted)), repository, wanted)


def _snapshot(repo: RepoId) -> Path | None:
    """Return the whole snapshot of a model in Hugging Face's cache; None if there is none."""
    try:
        found = snapshots.find(f"{repo}@{repo.revision}" if repo.revision else str(repo))
    except ModelError:  # of another commit, or damaged
        return None
    return None if found is None or found.missing else found.path


def _register_snapshot(wanted: Wanted, repo: RepoId, notes: Notes) -> Path:
    """Register a model of Hugging Face's cache; return its folder. Raises OptionError if there is none."""
    path = _snapshot(repo)
    if path is None:
        raise OptionError(f"HF_HUB_OFFLINE is set, and {repo} is not in {snapshots.PLACE}; unset it to fetch the model")
    if not _is_of(wanted):
        check_free(wanted.name, path)
    notes.say(f"{repo} is in {snapshots.PLACE}; nothing is fetched")
    register(wanted.name, path)
    return path


def _place(wanted: Wanted) -> Path:
    """Return the folder for the model. Raises OptionError if something else is there or has the name."""
    place = home() / "models" / wanted.name.replace("/", "--")
    if not _is_of(wanted):
        check_free(wanted.name, place)
    if place.exists() and not was_pulled(place):
        raise OptionError(f"{shown(str(place), limit=200)} was not fetched by this command; give another name")
    return place


def _is_of(wanted: Wanted) -> bool:
    """Return whether the name is registered for a commit of the same model, or for a folder that is gone."""
    path = registered().get(wanted.name)
    if path is None or not path.is_dir():
        return path is not None
    snapshot = settings.cache() / f"models--{wanted.repo.organisation}--{wanted.repo.repository}" / "snapshots"
    return path.is_relative_to(snapshot.resolve()) or pulled_from(path) == str(wanted.repo)


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

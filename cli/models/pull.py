"""``pull ORG/REPO``: fetches a model from a hub, file by file, and registers its name.

The files of a process that was interrupted or killed stay. The next process continues with them. Each file is checked
by its hash.
"""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.signals import Interrupted, uninterrupted
from mistral_mlx.errors import ConversionError, ModelError, OptionError, shown
from mistral_mlx.files.folder import ModelFolder

from .fetched import check_disk, check_place, is_of, partial, place_of, publish, working_folder
from .home import existing
from .hub import settings, snapshots
from .hub.choice import ABOUT, check_patterns, small_files, weight_files
from .hub.gathered import Gathered
from .hub.outlook import Outlook, outlook
from .hub.record import Patterns, is_current, pulled_from, write_record
from .hub.repo_id import RepoId, is_revision, parse_repo_id
from .hub.repository import Repository, read_repository
from .hub.web import Web
from .names import check_name
from .registry import check_free, register

NONE: Patterns = [[], []]
EXAMPLE = "mistralai/Mistral-7B-Instruct-v0.3"
RESERVE_BYTES = 100_000_000  # of the disk, left to others
MUCH_BYTES = 1_000_000_000  # whose hashes take a second or more


FETCHED, CURRENT = "is ready", "is up to date"
IN_CACHE = "is ready; it uses the files of Hugging Face's cache"


class Pulled(NamedTuple):
    """A model that is registered, and how it came here."""

    path: Path
    state: str  # FETCHED, CURRENT or IN_CACHE


@dataclass(frozen=True)
class Wanted:
    """What the user asks for: a model, the name under which it is registered, and patterns of file names."""

    repo: RepoId
    name: str
    include: Sequence[str] = ()
    exclude: Sequence[str] = ()

    @property
    def patterns(self) -> Patterns:
        return [list(self.include), list(self.exclude)]


def wanted(
    model: str, name: str | None, revision: str | None, include: Sequence[str], exclude: Sequence[str]
) -> Wanted:
    """Return what the arguments of the command ask for. Raises OptionError if one of them is wrong."""
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
    if name is not None and "--" in name:  # a folder of that name could be that of ORG/REPO
        raise OptionError(f"the name {shown(name)} has '--' in it; take another one")
    return Wanted(repo, check_name(name or repo.whole), include, exclude)


def _without_address(text: str) -> str:
    """Return the name in the address of a model's page; any other text as it is."""
    for address in (settings.endpoint(), settings.HUB, "https://hf.co"):
        if text.startswith(f"{address}/"):
            return text.removeprefix(f"{address}/").removesuffix("/").replace("/tree/", "@")
    return text


def pull(wanted: Wanted, notes: Notes) -> Pulled:
    """Fetch and register a model.

    Raises ConversionError if it cannot be fetched, ModelError if it is not supported. What has arrived stays, and the
    next call goes on from there.
    """
    if settings.is_offline():
        return _register_snapshot(wanted, _snapshot(wanted.repo))
    web, repository = _asked(wanted, notes)
    place = place_of(wanted.name, wanted.repo)
    is_own = pulled_from(place) == str(wanted.repo)
    if not is_own and wanted.patterns == NONE and (snapshot := _whole_snapshot(repository)) is not None:
        return _register_snapshot(wanted, snapshot)
    state = FETCHED
    with working_folder(place, lambda: notes.say("another process fetches this model; waiting for it")) as folder:
        check_place(place, wanted.name, wanted.repo)
        if is_current(place, repository, wanted.patterns):
            shutil.rmtree(folder)
            register(wanted.name, place)
            state = CURRENT
        else:
            _gather(Gathered(web, repository, folder, place), repository, wanted, folder, place, notes)
            with uninterrupted():
                publish(folder, place)
                register(wanted.name, place)
    return Pulled(place, state)


def look(wanted: Wanted, notes: Notes) -> Outlook:
    """Return what is known of a model without its weights; nothing stays on the disk. Raises as `pull`."""
    if settings.is_offline():
        raise OptionError("HF_HUB_OFFLINE is set, and --dry-run asks the hub; unset it")
    web, repository = _asked(wanted, notes)
    place = place_of(wanted.name, wanted.repo)
    check_place(place, wanted.name, wanted.repo)
    with TemporaryDirectory() as folder:
        gathered = Gathered(web, repository, Path(folder), place)
        files = gathered.begin(wanted.include, wanted.exclude)
        nbytes_here = gathered.nbytes_in(partial(place), place)
        return outlook(repository, gathered.files, files, nbytes_here, shutil.disk_usage(existing(place)).free)


def _asked(wanted: Wanted, notes: Notes) -> tuple[Web, Repository]:
    """Return the hub, and what it says of the model."""
    endpoint, token = settings.endpoint(), settings.token()
    notes.say(f"asking {endpoint} for {wanted.repo}")
    web = Web(endpoint, token, notes.say)
    return web, read_repository(web, wanted.repo)


def _snapshot(repo: RepoId) -> Path | None:
    """Return the whole snapshot of a model in Hugging Face's cache; None if there is none."""
    try:
        found = snapshots.find(repo.whole)
    except ModelError:  # of another commit, or damaged
        return None
    return None if found is None or found.missing else found.path


def _whole_snapshot(repository: Repository) -> Path | None:
    """Return the snapshot of this commit if it has every file that would be fetched, but for texts about the model."""
    path = _snapshot(repository.id._replace(revision=repository.commit))
    if path is None:
        return None
    small = [file for file in small_files(repository.files, [], []) if not ABOUT.match(file.name)]
    files = [*small, *weight_files(repository.files, ModelFolder(path), [], [])]
    sizes = {file.name: (path / file.name).stat().st_size for file in files if (path / file.name).is_file()}
    return path if all(sizes.get(file.name) == file.nbytes for file in files) else None


def _register_snapshot(wanted: Wanted, path: Path | None) -> Pulled:
    """Register a model of Hugging Face's cache. Raises OptionError if there is none."""
    if path is None:
        raise OptionError(
            f"HF_HUB_OFFLINE is set, and {wanted.repo} is not in {snapshots.PLACE}; unset it to fetch the model"
        )
    if not is_of(wanted.name, wanted.repo):
        check_free(wanted.name, path)
    register(wanted.name, path)
    return Pulled(path, IN_CACHE)


def _gather(
    gathered: Gathered, repository: Repository, wanted: Wanted, folder: Path, place: Path, notes: Notes
) -> None:
    """Fetch all files into `folder`. An error says what stays of them; nothing does if the model is not supported."""
    try:
        files = gathered.begin(wanted.include, wanted.exclude)
        nbytes_here = gathered.nbytes_in(folder, place) - gathered.nbytes_fetched
        found = outlook(repository, gathered.files, files, nbytes_here, shutil.disk_usage(folder).free)
        notes.report(found.lines())
        _check(found)
        if found.nbytes_here > MUCH_BYTES:
            notes.say("checking the files that are here already")
        gathered.check()
        with notes.progress("bytes", has_rate=True) as progress:
            gathered.fetch(progress)
        write_record(folder, repository, gathered.finish(), wanted.patterns)
    except ModelError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Interrupted as error:
        error.remark = f"interrupted; {gathered.remark() or 'nothing is here'}"
        raise
    except (ConversionError, OSError) as error:
        text = str(error) if isinstance(error, ConversionError) else f"the disk: {error.strerror or error}"
        raise ConversionError("; ".join(filter(None, (text, gathered.remark())))) from error


def _check(found: Outlook) -> None:
    """Raise ModelError for a model that is not supported, ConversionError if the disk has no room for it."""
    if found.verdict == "refused":
        raise ModelError(f"{found.repository} is not supported, and nothing more is fetched: {found.why}")
    check_disk(found.nbytes - found.nbytes_here, found.disk_free, spare=RESERVE_BYTES)

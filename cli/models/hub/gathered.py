"""The files of one model, those that are in a folder and those that have still to be fetched."""

import os
import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.progress import Progress

from .choice import small_files, weight_files
from .download import Advance, fetch_file, is_here, nbytes_begun
from .record import RECORD_NAME, read_record, was_pulled
from .repository import RemoteFile, Repository
from .web import Web


class Gathered:
    """Gathers the files of `repository` in `folder`; an older state of the model may be in `older`."""

    def __init__(self, web: Web, repository: Repository, folder: Path, older: Path) -> None:
        self._web, self._repository, self._folder, self._older = web, repository, folder, older
        self.files: list[RemoteFile] = []  # that are wanted
        self._missing: list[RemoteFile] = []  # weights
        self.nbytes_fetched = 0  # by this process, of small files

    def begin(self, include: Sequence[str], exclude: Sequence[str]) -> ModelFolder:
        """Fetch the small files, and choose the weights; return the folder."""
        small = small_files(self._repository.files, include, exclude)
        for file in small:
            if not self._has(file):
                self._fetch(file, lambda n: None)
                self.nbytes_fetched += file.nbytes
        folder = ModelFolder(self._folder)
        self._missing = weight_files(self._repository.files, folder, include, exclude)
        self.files = [*small, *self._missing]
        return folder

    def check(self) -> None:
        """Find out which weights are here, by their hashes."""
        self._missing = [file for file in self._missing if not self._has(file)]

    def fetch(self, progress: Progress) -> None:
        """Fetch the weights that are not here."""
        total = sum(file.nbytes for file in self.files)
        for file in self._missing:
            others = self.nbytes - nbytes_begun(self._folder, file)
            self._fetch(file, partial(_advance, progress, file.name, others, total))

    def finish(self) -> dict[str, int]:
        """Leave only what belongs to the model, and what the older state has beside it; return names and sizes.

        Other files of the same commit stay, and files that the user has put there.
        """
        wanted = {file.name: file.nbytes for file in self.files}
        for path in self._folder.iterdir():
            if path.name not in wanted:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        commit, fetched = read_record(self._older)
        of_this_commit = fetched if commit == self._repository.commit else {}
        replaced = {*wanted, RECORD_NAME, *(fetched.keys() - of_this_commit.keys())}
        for path in self._older.iterdir() if was_pulled(self._older) else ():
            if path.name not in replaced and not _take(path, self._folder / path.name):
                _copy(path, self._folder / path.name)
        kept = {name: n for name, n in of_this_commit.items() if type(n) is int and (self._folder / name).is_file()}
        return wanted | kept

    @property
    def nbytes(self) -> int:
        """How many bytes of the wanted files are here, whole ones and begun ones."""
        return self.nbytes_in(self._folder)

    def nbytes_in(self, *folders: Path) -> int:
        """Return how many bytes of the wanted files seem to be in `folders`, by their names and sizes."""
        found = 0
        for file in self.files:
            paths = [folder / file.name for folder in folders]
            is_whole = any(path.is_file() and path.stat().st_size == file.nbytes for path in paths)
            found += file.nbytes if is_whole else max(nbytes_begun(folder, file) for folder in folders)
        return found

    def remark(self) -> str:
        """Return a sentence on what stays when the work ends too early; empty if nothing does."""
        if not self.nbytes:
            return ""
        total = sum(file.nbytes for file in self.files)
        return f"{gigabytes(self.nbytes)} of {gigabytes(total)} are here, and the same command goes on from there"

    def _fetch(self, file: RemoteFile, advance: Advance) -> None:
        fetch_file(self._web, self._repository.url(self._web, file.name), file, self._folder, advance)

    def _has(self, file: RemoteFile) -> bool:
        """Return whether `file` is here; one that is the same in an older state is taken from there."""
        path = self._folder / file.name
        if is_here(self._folder, file):
            return True
        path.unlink(missing_ok=True)  # of another commit
        return was_pulled(self._older) and is_here(self._older, file) and _take(self._older / file.name, path)


def _take(path: Path, target: Path) -> bool:
    """Give a file a second name; return False on a file system that cannot do that, and for what is no file."""
    try:
        os.link(path, target, follow_symlinks=False)
    except OSError:
        return False
    return True


def _copy(path: Path, target: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, target, symlinks=True)
    else:
        shutil.copy2(path, target, follow_symlinks=False)


def _advance(progress: Progress, name: str, others: int, total: int, n: int) -> None:
    progress(name, others + n, total)

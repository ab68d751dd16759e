"""The files of one model, those that are in a folder and those that have still to be fetched."""

import os
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.progress import Progress

from .choice import small_files, weight_files
from .download import Advance, fetch_file, is_here, nbytes_begun
from .record import was_pulled
from .repository import RemoteFile, Repository
from .web import Web


class Gathered:
    """Gathers the files of `repository` in `folder`; an older commit of the model may be in `older`."""

    def __init__(self, web: Web, repository: Repository, folder: Path, older: Path) -> None:
        self._web, self._repository, self._folder, self._older = web, repository, folder, older
        self.files: list[RemoteFile] = []  # that are wanted
        self._missing: list[RemoteFile] = []
        self.nbytes_before = 0  # of weights, from earlier tries

    def begin(self, include: Sequence[str], exclude: Sequence[str]) -> ModelFolder:
        """Fetch the small files, and choose the weights; return the folder."""
        small = small_files(self._repository.files, include, exclude)
        for file in small:
            if not self._has(file):
                self._fetch(file, lambda n: None)
        folder = ModelFolder(self._folder)
        weights = weight_files(self._repository.files, folder, include, exclude)
        self.files = [*small, *weights]
        self._missing = [file for file in weights if not self._has(file)]
        self.nbytes_before = self.nbytes - sum(file.nbytes for file in small)
        return folder

    def fetch(self, progress: Progress) -> None:
        """Fetch the weights that are not here."""
        total = sum(file.nbytes for file in self.files)
        for file in self._missing:
            others = self.nbytes - nbytes_begun(self._folder, file)
            self._fetch(file, partial(_advance, progress, file.name, others, total))

    def finish(self) -> None:
        """Remove what is in the folder and does not belong to the model."""
        names = {file.name for file in self.files}
        for path in self._folder.iterdir():
            if path.name not in names:
                path.unlink()

    @property
    def nbytes(self) -> int:
        """How many bytes of the wanted files are here, whole ones and begun ones."""
        whole = sum(file.nbytes for file in self.files if (self._folder / file.name).is_file())
        return whole + sum(nbytes_begun(self._folder, file) for file in self.files)

    def remark(self) -> str:
        """Return a sentence on what stays when the work ends too early; empty if nothing does."""
        if not self.nbytes:
            return ""
        total = sum(file.nbytes for file in self.files)
        return f"{gigabytes(self.nbytes)} of {gigabytes(total)} are here, and the same command goes on from there"

    def _fetch(self, file: RemoteFile, advance: Advance) -> None:
        fetch_file(self._web, self._repository.url(self._web, file.name), file, self._folder, advance)

    def _has(self, file: RemoteFile) -> bool:
        """Return whether `file` is here; one that is the same in an older commit is taken from there."""
        path = self._folder / file.name
        if is_here(self._folder, file):
            return True
        if not was_pulled(self._older) or not is_here(self._older, file):
            return False
        try:
            path.unlink(missing_ok=True)
            os.link(self._older / file.name, path)
        except OSError:  # a file system without links
            return False
        return True


def _advance(progress: Progress, name: str, others: int, total: int, n: int) -> None:
    progress(name, others + n, total)

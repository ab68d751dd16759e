"""Finds models in the cache that Hugging Face's tools share: ``models--ORG--REPO/snapshots/COMMIT``.

A branch or a tag is a file in ``refs`` with the commit in it (huggingface_hub, "Understand caching").
"""

import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from mistral_mlx.cli.models.on_disk import Layout, OnDisk, confined, folder_on_disk, names_in
from mistral_mlx.cli.models.small_file import small_text
from mistral_mlx.errors import ModelError, shown

from . import settings
from .repo_id import COMMIT, RepoId, parse_repo_id

PLACE = "Hugging Face's cache"
BEGINNING = re.compile(r"[0-9a-f]{7,39}", re.ASCII)
MAX_REF_BYTES = 100
N_SHORT, N_SHOWN = 7, 3  # digits of a commit that is shown, and commits of a repository


def find(name: str) -> OnDisk | None:
    """Return the snapshot of ``ORG/REPO`` or ``ORG/REPO@REVISION``; None if the cache does not have the repository.

    Raises ModelError if it has another revision only, or something there is damaged or leads out of the cache.
    """
    repo = parse_repo_id(name)
    if repo is None:
        return None
    root = settings.cache()
    folder = confined(root, f"models--{repo.organisation}--{repo.repository}")
    commits = _commits(folder)
    commit = _commit(folder, repo, commits)
    if commit is None:
        return None
    snapshot = confined(root, folder.name, "snapshots", commit)
    found = folder_on_disk(name, PLACE, snapshot) if snapshot.is_dir() else None
    return found or OnDisk(name, PLACE, snapshot, Layout.HUGGING_FACE, "the whole snapshot")


def names() -> Iterator[str]:
    """Yield the names of the models in the cache: of the main branch, or else of the commits that are there."""
    root = settings.cache()
    for entry in names_in(root):
        name = "/".join(entry.removeprefix("models--").split("--"))
        if not entry.startswith("models--") or parse_repo_id(name) is None:
            continue
        if (root / entry / "refs" / "main").is_file():
            yield name
        else:
            yield from (f"{name}@{commit[:N_SHORT]}" for commit in islice(_commits(root / entry), N_SHOWN))


def _commit(folder: Path, repo: RepoId, commits: list[str]) -> str | None:
    """Return the commit that is meant; None if there is nothing of the repository."""
    revision = repo.revision or "main"
    if COMMIT.fullmatch(revision) and revision in commits:
        return revision
    text = small_text(confined(folder, "refs", *revision.split("/")), MAX_REF_BYTES)
    if text is not None:
        if not COMMIT.fullmatch(text.strip()):
            raise ModelError(f"{shown(revision)} of {repo} in {PLACE} is {shown(text.strip())}, which is no commit")
        return text.strip()
    alike = [commit for commit in commits if BEGINNING.fullmatch(revision) and commit.startswith(revision)]
    if len(alike) == 1:
        return alike[0]
    if not commits:
        return None
    what = f"has {len(alike)} commits that begin with" if alike else "does not have the revision"
    there = ", ".join(f"{repo}@{commit[:N_SHORT]}" for commit in commits[:N_SHOWN])
    raise ModelError(f"{PLACE} {what} {shown(revision)} of {repo}; it has {there}")


def _commits(folder: Path) -> list[str]:
    return [name for name in names_in(folder / "snapshots") if COMMIT.fullmatch(name)]

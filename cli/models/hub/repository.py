"""What a hub says of a model: its commit, its licence and its files. All of it is untrusted."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from urllib.parse import quote

from mistral_mlx.errors import ConversionError, shown

from .repo_id import COMMIT, RepoId
from .web import Web

SHA256 = re.compile(r"[0-9a-f]{64}", re.ASCII)
PLAIN_NAME = re.compile(r"\w[\w.+-]*", re.ASCII)  # a file at the top, with a name that every system can hold
MAX_NAME, MAX_NBYTES = 200, 1 << 50


@dataclass(frozen=True)
class RemoteFile:
    """A file as the hub describes it. Git's own hash (SHA-1) names a small file, SHA-256 one of Git LFS or Xet."""

    name: str
    nbytes: int
    sha256: str | None
    git_sha1: str | None


@dataclass(frozen=True)
class Repository:
    """A model on the hub at one commit."""

    id: RepoId
    commit: str
    licence: str  # as its page names it, or "unknown"
    is_gated: bool
    files: tuple[RemoteFile, ...]  # those at the top, in alphabetical order

    def url(self, web: Web, name: str) -> str:
        """Return the address of the file `name` at this commit."""
        return f"{web.endpoint}/{self.id}/resolve/{self.commit}/{quote(name)}"


def read_repository(web: Web, repo: RepoId) -> Repository:
    """Return what the hub says of `repo`. Raises ConversionError if that is nothing, or not plausible."""
    page, *_ = web.pages(f"api/models/{repo}/revision/{quote(repo.revision or 'main', safe='')}")
    commit = page.get("sha") if isinstance(page, dict) else None
    if not isinstance(page, dict) or not isinstance(commit, str) or not COMMIT.fullmatch(commit):
        raise ConversionError(f"{shown(web.endpoint, limit=200)} says nothing of {repo}; check HF_ENDPOINT")
    entries = [entry for tree in web.pages(f"api/models/{repo}/tree/{commit}") for entry in _list(tree)]
    files = sorted(_files(entries), key=lambda file: file.name)
    return Repository(repo, commit, _licence(page), bool(page.get("gated")), tuple(files))


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []


def _files(entries: list[object]) -> Iterator[RemoteFile]:
    """Yield the files that can be fetched and checked; folders and odd names are left out."""
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("type") != "file":
            continue
        name, lfs = entry.get("path"), entry.get("lfs")
        if not isinstance(name, str) or len(name) > MAX_NAME or not PLAIN_NAME.fullmatch(name):
            continue
        nbytes = (lfs if isinstance(lfs, dict) else entry).get("size")
        sha256 = _hash(lfs.get("oid") if isinstance(lfs, dict) else None, SHA256)
        git_sha1 = None if isinstance(lfs, dict) else _hash(entry.get("oid"), COMMIT)
        if type(nbytes) is int and 0 <= nbytes <= MAX_NBYTES and (sha256 or git_sha1):
            yield RemoteFile(name, nbytes, sha256, git_sha1)


def _hash(value: object, form: re.Pattern[str]) -> str | None:
    return value if isinstance(value, str) and form.fullmatch(value) else None


def _licence(page: dict[str, object]) -> str:
    card, tags = page.get("cardData"), page.get("tags")
    named = card.get("license_name") or card.get("license") if isinstance(card, dict) else None
    tagged = [tag[8:] for tag in _list(tags) if isinstance(tag, str) and tag.startswith("license:")]
    found = named if isinstance(named, str) else tagged[0] if tagged else "unknown"
    return shown(found, limit=40)

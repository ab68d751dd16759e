"""The name of a model on the hub: ``ORG/REPO``, or ``ORG/REPO@REVISION``."""

import re
from typing import NamedTuple

# huggingface_hub/utils/_validators.py: at most 96 characters, no "--" and "..", no "-" or "." at either end.
PART = re.compile(r"[A-Za-z0-9_](?:(?!--|\.\.)[\w.-])*", re.ASCII)
REVISION = re.compile(r"(?!.*\.\.)[\w.][\w./+-]*", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}", re.ASCII)
MAX_ID, MAX_REVISION = 96, 200


class RepoId(NamedTuple):
    """An organisation or a user, a repository, and a branch, a tag or a commit; None for the main branch."""

    organisation: str
    repository: str
    revision: str | None = None

    def __str__(self) -> str:
        """Return ``ORG/REPO``, without the revision."""
        return f"{self.organisation}/{self.repository}"

    @property
    def whole(self) -> str:
        """Return ``ORG/REPO@REVISION``, or ``ORG/REPO`` for the main branch."""
        return f"{self}@{self.revision}" if self.revision else str(self)


def parse_repo_id(text: str) -> RepoId | None:
    """Return the name in `text`, or None if it is none: no text that is a path, such as ``./model``, is one."""
    name, at, revision = text.partition("@")
    parts = name.split("/")
    if len(parts) != 2 or len(name) > MAX_ID or not all(map(_is_part, parts)):
        return None
    if at and not is_revision(revision):
        return None
    organisation, repository = parts
    return RepoId(organisation, repository, revision or None)


def is_revision(text: str) -> bool:
    """Return whether `text` can name a branch, a tag or a commit."""
    return len(text) <= MAX_REVISION and REVISION.fullmatch(text) is not None and not text.endswith((".", "/"))


def _is_part(text: str) -> bool:
    return PART.fullmatch(text) is not None and not text.endswith(("-", ".", ".git"))

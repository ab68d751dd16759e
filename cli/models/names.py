"""What a model may be called, and what tells a name from a path."""

import os
import re

from mistral_mlx.errors import OptionError, shown

MAX_NAME = 200  # ORG/REPO@COMMIT has up to 137
NO_NAME = ("-", ".", "~", os.sep)  # an option, or a path


def is_path(text: str) -> bool:
    """Return whether `text` can only be a path: it begins with a slash, a dot or a tilde."""
    return text.startswith((".", "~", os.sep))


def check_name(name: str) -> str:
    """Return `name` if a model may be registered under it. Raises OptionError."""
    from .hub.repo_id import parse_repo_id  # which a start of the program need not wait for

    if (
        not 0 < len(name) <= MAX_NAME
        or not name.isprintable()
        or any(c.isspace() for c in name)
        or name.startswith(NO_NAME)
        or (os.sep in name and parse_repo_id(name) is None)
    ):
        raise OptionError(
            f"{shown(name)} cannot be a model's name; take at most {MAX_NAME} characters without spaces, none of "
            "'-', '.', '~' at the beginning, and a slash only as in ORG/REPO"
        )
    return name


def file_name(name: str) -> str:
    """Return the last part of a model's name as a file may be called: ``7b-mistral`` of ``ns/7b:mistral``."""
    last, at, _ = name.rpartition("@")
    return re.sub(r"[^\w.-]+", "-", os.path.basename(last if at else name))

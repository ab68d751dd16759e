"""What the word that is being typed in a chat may become: a command, a path, a name, a setting."""

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

MAX_CANDIDATES = 200


def candidates(text: str, commands: Mapping[str, str], kinds: Mapping[str, Callable[[], Iterable[str]]]) -> list[str]:
    """Return what the last word of `text` may become.

    `commands` tells for each name what follows it: "paths", a key of `kinds`, which gives the words, or nothing.
    """
    if not text.startswith("/"):
        return []
    name, space, rest = text[1:].partition(" ")
    if not space:
        return [f"/{command}" for command in commands if command.startswith(name)]
    kind, word = commands.get(name, ""), rest.rpartition(" ")[2]
    if kind == "paths":
        return paths(word)
    if kind in kinds and " " not in rest:
        return [candidate for candidate in kinds[kind]() if candidate.startswith(word)]
    return []


def paths(word: str) -> list[str]:
    """Return the paths that begin with `word`; folders end with a slash, hidden ones wait for a dot."""
    folder, start = os.path.split(word)
    try:
        entries = sorted(os.scandir(Path(folder or ".").expanduser()), key=lambda entry: entry.name)
    except OSError:
        return []
    found = []
    for entry in entries:
        if entry.name.startswith(start) and (start or not entry.name.startswith(".")) and entry.name.isprintable():
            path = os.path.join(folder, entry.name) + ("/" if entry.is_dir() else "")
            found.append(path.replace(" ", "\\ "))
    return found[:MAX_CANDIDATES]

"""Completes the word that is being typed in a chat: a command, a path, a name or a setting."""

import itertools
import os
from collections.abc import Callable, Iterable, Mapping

from prompt_toolkit.completion import CompleteEvent, Completer, Completion, PathCompleter, WordCompleter
from prompt_toolkit.document import Document

from .settings import VALUES

MAX_CANDIDATES = 200


class CommandCompleter(Completer):
    """Completes the names of commands, and the first word after a name.

    `commands` maps each name to the kind of its argument: "paths", "settings", a key of `words`, or "" for no
    completion; `words` maps each other kind to a function that returns the candidates. `helps` has the text that the
    menu shows beside each name. NestedCompleter splits a name at its slash.
    """

    def __init__(
        self, commands: Mapping[str, str], words: Mapping[str, Callable[[], list[str]]], helps: Mapping[str, str]
    ) -> None:
        kinds: dict[str, Completer] = {kind: _whole(get) for kind, get in words.items()}
        kinds["paths"], kinds["settings"] = _Paths(), _Settings()
        self._names = _whole([f"/{name}" for name in commands], {f"/{name}": text for name, text in helps.items()})
        self._arguments = {name: kinds[kind] for name, kind in commands.items() if kind}

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        text = document.text_before_cursor
        if not text.startswith("/") or "\n" in text or not document.is_cursor_at_the_end:
            return
        name, space, rest = text[1:].partition(" ")
        if not space:
            yield from self._names.get_completions(document, complete_event)
        elif name in self._arguments:
            yield from self._arguments[name].get_completions(Document(rest), complete_event)


class _Paths(Completer):
    """Paths for the last word: folders end with a slash, hidden names only after a dot, spaces after a backslash."""

    def __init__(self) -> None:
        self._paths = PathCompleter(expanduser=True)

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        word = document.text.rpartition(" ")[2]
        shows_hidden = os.path.basename(word).startswith(".")
        found = self._paths.get_completions(Document(word), complete_event)
        fit = (
            f for f in found if f.display_text.isprintable() and (shows_hidden or not f.display_text.startswith("."))
        )
        for path in itertools.islice(fit, MAX_CANDIDATES):
            ending = "/" if path.display_text.endswith("/") else ""
            yield Completion((word + path.text + ending).replace(" ", "\\ "), -len(word))


class _Settings(Completer):
    """The names of the settings, and then the values of those that have few."""

    def get_completions(self, document: Document, complete_event: CompleteEvent) -> Iterable[Completion]:
        name, space, value = document.text.partition(" ")
        words = VALUES.get(name.replace("-", "_"), ()) if space else tuple(VALUES)
        yield from _whole(list(words)).get_completions(Document(value if space else name), complete_event)


def _whole(words: list[str] | Callable[[], list[str]], helps: Mapping[str, str] | None = None) -> Completer:
    """Return a completer of the whole text: names may hold characters that end a word elsewhere."""
    return WordCompleter(words, meta_dict=helps, sentence=True)

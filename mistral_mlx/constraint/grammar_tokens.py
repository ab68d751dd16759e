"""The tokens of a grammar's text, and a reader that takes them one by one; both notations share it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NoReturn

from .rules import MAX_NESTING, MAX_NODES, GrammarFault


@dataclass(frozen=True)
class Token:
    """A piece of a grammar's text; `kind` is the name of its group in the notation's pattern, or "end"."""

    kind: str
    text: str
    line: int


def tokens_of(text: str, pattern: re.Pattern[str]) -> list[Token]:
    """Return the tokens of a text, without what is `blank`. The pattern matches at every place."""
    found: list[Token] = []
    at, line = 0, 1
    while at < len(text):
        match = pattern.match(text, at)
        assert match and match.lastgroup
        if match.lastgroup != "blank":
            found.append(Token(match.lastgroup, match[0], line))
        at, line = match.end(), line + len(re.findall(r"\r\n?|\n", match[0]))
    return [*found, Token("end", "", line)]


class TokenReader:
    """Takes tokens from the first to the last. `refused` says why there can be none of a kind."""

    def __init__(self, tokens: list[Token], refused: Mapping[str, str]) -> None:
        self.tokens, self.at = tokens, 0
        self._refused = refused
        self._n_nodes = 0

    @property
    def next(self) -> Token:
        return self.tokens[self.at]

    def takes(self, *kinds: str) -> bool:
        """Take tokens if these are the next ones."""
        taken = tuple(token.kind for token in self.tokens[self.at : self.at + len(kinds)]) == kinds
        self.at += len(kinds) * taken
        return taken

    def take(self, kind: str, what: str) -> Token:
        """Return the next token. Raises GrammarFault, which names `what` is wanted, if it is of another kind."""
        if not self.takes(kind):
            self.unexpected(what)
        return self.tokens[self.at - 1]

    def skip_lines(self) -> Token:
        """Skip ends of lines, and return what comes next."""
        while self.next.kind == "line":
            self.at += 1
        return self.next

    def count(self) -> None:
        """Count a part of the grammar. Raises GrammarFault for one too many."""
        self._n_nodes += 1
        if self._n_nodes > MAX_NODES:
            raise GrammarFault(f"has more than {MAX_NODES:,} parts")

    def check_nesting(self, depth: int) -> None:
        """Raise GrammarFault for a group that lies too deep."""
        if depth > MAX_NESTING:
            raise GrammarFault(f"has more than {MAX_NESTING} groups inside each other in line {self.next.line}")

    def unexpected(self, wanted: str) -> NoReturn:
        """Raise GrammarFault for the next token."""
        token = self.next
        if token.kind in self._refused:
            raise GrammarFault(f"has {token.text} in line {token.line}; {self._refused[token.kind]}")
        seen = {"end": "the end", "line": "the end of the line"}.get(token.kind, repr(token.text))
        raise GrammarFault(f"has {seen} in line {token.line} instead of {wanted}")

"""Writes the rules of a grammar in the Lark notation of llguidance. Nothing of the user's text is passed on."""

import json
from collections.abc import Callable, Iterable

from .rules import Choice, Expression, Name, Node, Repeat, Rules, Sequence, Word


def lark_text(rules: Rules, written: Iterable[str], name_of: Callable[[str], str], *, by_letter: bool = False) -> str:
    """Return the definitions of the rules `written`; `name_of` gives the name that a rule has in Lark.

    With `by_letter`, a word becomes a sequence of letters.
    """
    return "".join(f"{name_of(name)}: {_text(rules[name], name_of, by_letter)}\n" for name in written)


def quoted(word: Word) -> str:
    """Return a word as a string of Lark."""
    return json.dumps(word.text) + "i" * word.ignoring_case


def _text(node: Node, name_of: Callable[[str], str], by_letter: bool) -> str:
    def inner(node: Node) -> str:
        return _text(node, name_of, by_letter)

    match node:
        case Word(text, ignoring_case) if by_letter and len(text) > 1:
            return f"({' '.join(quoted(Word(letter, ignoring_case)) for letter in text)})"
        case Word():
            return quoted(node)
        case Expression(text):
            return f"/{text}/"
        case Name(name):
            return name_of(name)
        case Sequence(parts):
            return " ".join(map(inner, parts)) or '""'
        case Choice(options):
            return f"({' | '.join(map(inner, options))})"
        case Repeat(_, _, 0):
            return '""'
        case Repeat(part, least, most):
            return f"({inner(part)})" + _times(least, most)


def _times(least: int, most: int | None) -> str:
    short = {(0, None): "*", (1, None): "+", (0, 1): "?"}
    return short.get((least, most)) or f"{{{least},{'' if most is None else most}}}"

"""A slow recognizer of the rules of a grammar, letter by letter, to compare with."""

import re

from mistral_mlx.constraint.rules import Choice, Expression, Name, Node, Repeat, Rules, Sequence, Word


def recognizes(rules: Rules, start: str, text: str) -> bool:
    """Return whether `text` is a text of the rule `start`.

    For each rule and place, the places where its texts end are collected until no more are found.
    """
    ends: dict[tuple[str, int], set[int]] = {(name, at): set() for name in rules for at in range(len(text) + 1)}
    grown = True
    while grown:
        grown = False
        for (name, at), known in ends.items():
            found = _ends(rules[name], text, at, ends)
            grown = grown or not found <= known
            known |= found
    return len(text) in ends[start, 0]


def _ends(node: Node, text: str, at: int, ends: dict[tuple[str, int], set[int]]) -> set[int]:
    match node:
        case Word(word, ignoring_case):
            same = text[at : at + len(word)]
            return {at + len(word)} if same == word or (ignoring_case and same.lower() == word.lower()) else set()
        case Expression(expression):
            python = re.sub(r"\\x\{(\w+)\}", lambda code: re.escape(chr(int(code[1], 16))), expression)
            return {end for end in range(at, len(text) + 1) if re.fullmatch(python, text[at:end])}
        case Name(name):
            return set(ends[name, at])
        case Sequence(parts):
            places = {at}
            for part in parts:
                places = {end for place in places for end in _ends(part, text, place, ends)}
            return places
        case Choice(options):
            return {end for option in options for end in _ends(option, text, at, ends)}
        case Repeat(part, least, most):
            return _repeated(part, least, most, text, at, ends)


def _repeated(part: Node, least: int, most: int | None, text: str, at: int, ends) -> set[int]:
    places, found = {at}, {at} if least == 0 else set()
    for times in range(1, (len(text) + least + 1 if most is None else most) + 1):
        places = {end for place in places for end in _ends(part, text, place, ends)}
        found |= places if times >= least else set()
    return found

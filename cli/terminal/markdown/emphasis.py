"""Pairs the marks of emphasis by CommonMark's rules for delimiter runs, of which those for `**` and `~~` are cases."""

import unicodedata
from collections.abc import Iterable

from mistral_mlx.cli.terminal.style import BOLD, ITALIC, STRIKE

from .node import MAX_SPAN, Run

_CJK = (("\u2e80", "\u9fff"), ("\uac00", "\ud7af"), ("\uf900", "\ufaff"), ("\uff00", "\uffef"))


def flanks(mark: str, before: str, after: str) -> tuple[bool, bool]:
    """Return whether a run of `mark` between two characters can open, and close, emphasis; "" is no character.

    A `*` between digits cannot: 2*3*4 would become another number. Beside Chinese and Japanese, which have no spaces,
    also a run between their punctuation and a letter can.
    """
    if mark == "*" and before.isdigit() and after.isdigit():
        return False, False
    is_left = not _is_space(after) and (not _is_punctuation(after) or _is_apart(before))
    is_right = not _is_space(before) and (not _is_punctuation(before) or _is_apart(after))
    if mark != "_":
        return is_left, is_right
    return (
        is_left and (not is_right or _is_punctuation(before)),
        is_right and (not is_left or _is_punctuation(after)),
    )


def pair(runs: Iterable[Run]) -> list[Run]:
    """Pair closing with opening runs; return those that may still open emphasis."""
    openers = list[Run]()
    bottoms = dict[tuple[str, bool, int], int]()  # for a kind of closer, the place before which nothing opens it
    for run in runs:
        if run.can_close:
            kind = (run.text[0], run.can_open, run.length % 3)
            while run.text and (place := _opener(openers, run, bottoms.get(kind, 0))) is not None:
                _join(openers[place], run)
                del openers[place + bool(openers[place].text) :]
            if run.text:
                bottoms[kind] = run.place
        if run.can_open and run.text:
            openers.append(run)
    return openers


def _opener(openers: list[Run], closer: Run, bottom: int) -> int | None:
    """Return the place of the last run that `closer` closes."""
    for place in range(len(openers) - 1, -1, -1):
        opener = openers[place]
        if opener.opens_at < max(bottom, closer.place - MAX_SPAN):
            return None
        if opener.text[0] == closer.text[0] and not _is_odd(opener, closer):
            return place
    return None


def _is_odd(opener: Run, closer: Run) -> bool:
    """Return whether the rule of three forbids the pair: `*foo**bar*` is one emphasis."""
    if not (opener.can_close or closer.can_open):
        return False
    return (opener.length + closer.length) % 3 == 0 and bool(opener.length % 3 or closer.length % 3)


def _join(opener: Run, closer: Run) -> None:
    mark = opener.text[0]
    n = 2 if len(opener.text) >= 2 and len(closer.text) >= 2 else 1
    style = STRIKE if mark == "~" else BOLD if n == 2 else ITALIC
    opener.text, closer.text = opener.text[n:], closer.text[n:]
    opener.starts.append(style)
    closer.ends.append(style)


def _is_space(char: str) -> bool:
    return not char or char.isspace()


def _is_punctuation(char: str) -> bool:
    return bool(char) and not _is_cjk(char) and unicodedata.category(char)[0] in "PS"


def _is_apart(char: str) -> bool:
    return _is_space(char) or _is_punctuation(char) or _is_cjk(char)


def _is_cjk(char: str) -> bool:
    return any(first <= char <= last for first, last in _CJK)

"""How many cells of a terminal a text takes, where terminals differ: as many as any of them may give it."""

import re
import unicodedata
from collections.abc import Iterator

from rich.cells import cell_len, get_character_cell_size

# Marks, scripts with many marks, joiners, variation selectors, emoji, flags and tags.
_UNCERTAIN = re.compile(
    "[\u00ad\u0300-\u036f\u0483-\u0489\u0590-\u1cff\u1dc0-\u1dff\u200b-\u200f\u20d0-\u20ff\ufe00-\ufe0f"
    "\U0001f000-\U0001ffff\U000e0000-\U000e01ef]"
)
_JOINER, _EMOJI_STYLE = "\u200d", "\ufe0f"


def is_certain(text: str) -> bool:
    """Return whether all terminals give `text` the same number of cells."""
    return text.isascii() or not _UNCERTAIN.search(text)


def width(text: str) -> int:
    """Return the cells of `text`, which has no control characters."""
    if text.isascii():
        return len(text)
    return cell_len(text) if is_certain(text) else sum(map(_cluster_width, clusters(text)))


def clusters(text: str) -> Iterator[str]:
    """Yield what a reader takes for the characters of `text`: with its marks, joined emoji, flags, keycaps."""
    start = 0
    for place in range(1, len(text) + 1):
        if place == len(text) or not _joins(text, start, place):
            yield text[start:place]
            start = place


def first_cells(text: str, n_cells: int) -> str:
    """Return the longest beginning of `text` that takes at most `n_cells`; no cluster is cut."""
    text = text[: 8 * max(n_cells, 0)]  # enough, unless it is full of marks
    if text.isascii():
        return text[: max(n_cells, 0)]
    place = 0
    for cluster in clusters(text):
        n_cells -= _cluster_width(cluster)
        if n_cells < 0:
            break
        place += len(cluster)
    return text[:place]


def _joins(text: str, start: int, place: int) -> bool:
    """Return whether the character at `place` belongs to the cluster that begins at `start`."""
    char, before = text[place], text[place - 1]
    if char.isascii():
        return False
    if _is_flag_letter(char):
        return place == start + 1 and _is_flag_letter(before)
    return before == _JOINER or char == _JOINER or "\U0001f3fb" <= char <= "\U0001f3ff" or _is_mark(char)


def _cluster_width(cluster: str) -> int:
    if len(cluster) == 1 and not _is_flag_letter(cluster):
        return get_character_cell_size(cluster)
    sizes = [2 if c >= "\U0001f000" else get_character_cell_size(c) for c in cluster if not _is_mark(c)]
    return max(sum(sizes), 2 if _EMOJI_STYLE in cluster else 0)


def _is_flag_letter(char: str) -> bool:
    return "\U0001f1e6" <= char <= "\U0001f1ff"


def _is_mark(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Me", "Mc", "Cf")

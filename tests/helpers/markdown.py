"""Runs the chat's Markdown on a screen of a test."""

import random
from itertools import pairwise

from helpers.screen import Screen

from mistral_mlx.cli.terminal.markdown import MarkdownStream


def shown(pieces, columns=40, *, joins=True):
    """Return the screen after an answer that came in `pieces`, on a terminal that joins emoji, or does not."""
    screen = Screen(joins=joins)
    write(MarkdownStream(screen, lambda: columns), pieces)
    return screen


def continued(before, after, columns=40):
    """Return the screen after an answer and its continuation."""
    screen = Screen()
    write(MarkdownStream(screen, lambda: columns), before)
    write(MarkdownStream.resume(before, screen, lambda: columns), after)
    return screen


def write(stream, pieces):
    for piece in pieces:
        stream.write(piece)
    stream.finish()


def cut(text, seed, longest=6):
    """Return `text` in random pieces."""
    rng, places = random.Random(seed), [0]
    while places[-1] < len(text):
        places.append(places[-1] + rng.randint(1, longest))
    return [text[a:b] for a, b in pairwise(places)]


def marked(screen):
    """Return the rows of a screen with [bold], /italic/, {code}, ~strike~ and <dim>, for a test to read."""
    signs = {"bold": "[]", "italic": "//", "colour 35": "{}", "strike": "~~", "dim": "<>"}
    lines = []
    for row in screen.rows:
        text, before = "", frozenset()
        for char, styles in [*row, ("", frozenset())]:
            text += "".join(signs[s][1] for s in sorted(before - styles) if s in signs)
            text += "".join(signs[s][0] for s in sorted(styles - before) if s in signs) + char
            before = styles
        lines.append(text.rstrip())
    return "\n".join(lines).rstrip("\n")

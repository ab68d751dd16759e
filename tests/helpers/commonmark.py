"""What the chat should show of a Markdown text, made from what markdown-it-py reads in it.

A row is a list of (character, styles). Blanks have no style, several are one, and those at both ends are left out, as
are rows without a character, and the rows of fences. Styles are None where any are right: in code blocks and raw HTML.
"""

import re
from urllib.parse import unquote

from markdown_it import MarkdownIt

BAR, BULLET, RULE = "│", "•", "─"
BOLD, CODE, DIM, LINK = frozenset({"bold"}), frozenset({"colour 35"}), frozenset({"dim"}), frozenset({"underline"})
SPANS = {"strong": BOLD, "em": frozenset({"italic"}), "s": frozenset({"strike"}), "link": LINK}
FENCE = re.compile(r"[│ •\d.)]*?(`{3,}[^`]*|~{3,}.*)")


def expected(markdown):
    """Return the rows of `markdown`, as CommonMark reads it."""
    page = Page()
    for token in MarkdownIt("commonmark").parse(markdown):
        page.add(token)
    return tidy(page.rows)


class Page:
    """Collects the rows of a document."""

    def __init__(self):
        self.rows, self.markers, self.style, self.ruled = [], [], frozenset(), False

    def add(self, token):
        kind = token.type
        if kind == "list_item_open":
            self.markers.append([BULLET if token.markup in "-+*" else token.info + token.markup, True])
        elif kind == "blockquote_open":
            self.markers.append([BAR, True])
        elif kind in ("list_item_close", "blockquote_close"):
            if self.markers[-1][1]:
                self.row([])
            self.markers.pop()
        elif kind == "heading_open" and token.markup[0] == "#":
            self.style = BOLD | CODE if token.tag in ("h1", "h2") else BOLD
        elif kind == "heading_close":
            self.style = frozenset()
            if token.markup[0] != "#":
                self.row([(RULE, DIM)])
        elif kind == "hr":
            self.row([(RULE, DIM)])
        elif kind == "inline":
            self.inline(token.children)
        elif kind in ("fence", "code_block", "html_block"):
            for line in token.content.removesuffix("\n").split("\n"):
                self.row([(char, None) for char in line])

    def row(self, cells):
        """Append a row behind the marks of what it is in; that of an item is only in its first row."""
        first = [marker for marker, is_new in self.markers if is_new or marker == BAR]
        for marker in self.markers:
            marker[1] = False
        self.rows.append([(char, None) for mark in first for char in [*mark, " "]] + cells)

    def inline(self, tokens):
        row, styles, urls = [], [self.style], []
        for token in tokens:
            if token.type in ("softbreak", "hardbreak"):
                self.row(row)
                row = []
            elif token.type.endswith("_open"):
                styles.append(styles[-1] | SPANS[token.type.removesuffix("_open")])
                urls.append((len(row), unquote(token.attrs.get("href", ""))))
            elif token.type.endswith("_close"):
                styles.pop()
                place, url = urls.pop()
                if url and "".join(char for char, _ in row[place:]) not in (url, url.removeprefix("mailto:")):
                    row += [(char, styles[-1] | DIM) for char in f" ({url})"]
            elif token.type == "image":
                url = unquote(token.attrs["src"])
                row += [(char, styles[-1] | LINK) for char in token.content]
                row += [(char, styles[-1] | DIM) for char in f" ({url})"]
            else:
                style = {"code_inline": styles[-1] | CODE, "html_inline": None}.get(token.type, styles[-1])
                row += [(char, style) for char in token.content]
        self.row(row)


def seen(rows):
    """Return the rows of a screen in the same form: without links, and with one character for a whole rule."""
    found, marks = [], []
    for row in rows:
        text = "".join(char for char, _ in row)
        fence = FENCE.fullmatch(text.rstrip())
        if fence and all("dim" in styles for char, styles in row[fence.start(1) :] if char.strip()):
            marks = marks or [cell for cell in row[: fence.start(1)] if cell[0] != BAR]
            continue
        cells = [(char, frozenset(s for s in styles if ":" not in s)) for chars, styles in row for char in chars]
        cells, marks = marks + cells, []
        if re.fullmatch(r"[│•\d.) ]*(─+|═+)", text.rstrip()):
            text = text.rstrip()
            cells = [*cells[: len(text) - len(text.lstrip("│•0123456789.) "))], (RULE, DIM)]
        found.append(cells)
    return tidy(found)


def tidy(rows):
    """Return `rows` without blanks that say nothing and without empty rows."""
    found = []
    for row in rows:
        kept = []
        for char, styles in row:
            if not char.strip():
                if kept and kept[-1][0] != " ":
                    kept.append((" ", None))
            else:
                kept.append((char, styles))
        if kept and kept[-1][0] == " ":
            kept.pop()
        if any(char not in "│" for char, _ in kept if char != " "):
            found.append(kept)
    return found


def same(found, wanted):
    """Return whether two lists of rows agree."""
    return len(found) == len(wanted) and all(
        len(a) == len(b)
        and all((x == y and None in (s, t)) or (x, s) == (y, t) for (x, s), (y, t) in zip(a, b, strict=True))
        for a, b in zip(found, wanted, strict=True)
    )


def shown(rows):
    """Return rows as a text for a failed test: [bold], /italic/, ..."""
    signs = {"bold": "B", "italic": "I", "colour 35": "C", "underline": "U", "strike": "S", "dim": "D"}
    return "\n".join(
        "".join(f"{char}{''.join(sorted(signs.get(s, s) for s in styles or ()))}" for char, styles in row)
        for row in rows
    )

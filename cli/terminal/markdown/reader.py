"""Cuts a paragraph into nodes: escapes, entities, code spans, links, formulas, raw HTML, and runs to be paired.

A paragraph that has not ended is read up to the first mark whose meaning depends on what follows. Each construct is at
most MAX_SPAN characters long, so that a mark that nothing closes does not hold back the rest of the answer.
"""

import re
from html import unescape
from html.entities import html5

from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.style import CODE, DIM

from .emphasis import flanks, pair
from .links import OPEN_TAIL, TAIL, link, target
from .node import MAX_SPAN, Bracket, Node, Run

LINK = "link "  # a style: this, and the URL

SPECIAL = re.compile(r"[\\`*_~\[\]!<&$\n]")
_ASCII_PUNCTUATION = frozenset("!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~")
_TICKS = re.compile("`+")
_RUN = re.compile(r"\*+|_+|~+|`+")
_ENTITY = re.compile(r"&(?:#[xX][0-9a-fA-F]{1,6}|#\d{1,7}|[A-Za-z][A-Za-z0-9]{1,31});")
_OPEN_ENTITY = re.compile(r"&(?:#(?:[xX][0-9a-fA-F]{0,6}|\d{0,7})|[A-Za-z][A-Za-z0-9]{0,31})?")
_AUTOLINK = re.compile(
    r"<([A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*|[\w.!#$%&'*+/=?^`{|}~-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*)>"
)
_HTML = re.compile(
    r"<(?:[A-Za-z][A-Za-z0-9-]*(?:\s+[A-Za-z_:][\w.:-]*(?:\s*=\s*(?:[^\s\"'=<>`]+|'[^']*'|\"[^\"]*\"))?)*\s*/?"
    r"|/[A-Za-z][A-Za-z0-9-]*\s*|!---?|!--.*?--|\?.*?\?|![A-Za-z][^>]*|!\[CDATA\[.*?\]\])>",
    re.DOTALL,
)
_OPEN_ANGLE = re.compile(
    r"<(?:[!?].*|/?[A-Za-z][A-Za-z0-9-]*/?|[A-Za-z][A-Za-z0-9-]*\s(?:[^<>\"']|\"[^\"]*\"|'[^']*')*(?:\"[^\"]*|'[^']*)?"
    r"|/[A-Za-z][A-Za-z0-9-]*\s*|[A-Za-z][A-Za-z0-9+.-]{1,31}:[^\s<>]*|[\w.!#$%&'*+/=?^`{|}~-]+@?[A-Za-z0-9.-]*)?",
    re.DOTALL,
)
_FORMULAS = {r"\(": r"\)", r"\[": r"\]", "$$": "$$"}


class Reader:
    """Reads `text`, which follows the character `before`; `stop` is how far it came."""

    def __init__(self, text: str, before: str, *, ended: bool, long_run: str = "", n_before: int = 0) -> None:
        self.nodes = list[Node]()
        self.runs = list[Run]()  # those that are not in a link
        self.brackets = list[Bracket]()
        self.stop = 0
        self._text, self._before, self._ended, self._long_run = text, before, ended, long_run
        self._n_before = n_before  # of the marks of a run at the start that have been paired
        self._n_without_links = 0  # brackets before this place begin no link: there is one in it
        while self.stop < len(text) and self._read():
            pass

    def _read(self) -> bool:
        """Read the next nodes; return False if more text is needed for them."""
        text, start = self._text, self.stop
        match = SPECIAL.search(text, start)
        place = match.start() if match else len(text)
        if place > start:
            self._add(Node(text[start:place], start, place))
            return True
        node = self._special(text[start], start)
        if node:
            self._add(node)
        return bool(node)

    def _add(self, node: Node) -> None:
        self.nodes.append(node)
        self.stop = node.end

    def _special(self, char: str, place: int) -> Node | None:
        """Return the node that begins with `char` at `place`, or None if more text is needed."""
        if char in "*_~":
            return self._run(char, place)
        if char == "`":
            return self._code(place)
        if char in "\\$":
            return self._backslash_or_dollar(place)
        if char == "]":
            return self._close(place)
        if char in "[!":
            return self._open(char, place)
        if char == "&":
            return self._entity(place)
        return self._angle(place) if char == "<" else self._plain(place)

    def _plain(self, place: int, n: int = 1) -> Node:
        return Node(self._text[place : place + n], place, place + n)

    def _needs_more(self, place: int) -> bool:
        """Return whether what begins at `place` may still end within MAX_SPAN."""
        return not self._ended and len(self._text) - place <= MAX_SPAN

    def _run(self, mark: str, place: int) -> Node | None:
        text, end = self._text, self._end_of_run(place)
        n = end - place
        if self._goes_on(mark, place):
            return self._plain(place, n)
        if end == len(text) and self._needs_more(place):
            return None
        if n > MAX_SPAN or (mark == "~" and n != 2):
            return self._plain(place, n)
        before = text[place - 1] if place else self._before
        can_open, can_close = flanks(mark, before, text[end : end + 1])
        n_before = 0 if place else self._n_before
        run = Run(text[place:end], place, end, can_open=can_open, can_close=can_close, n_before=n_before)
        self.runs.append(run)
        return run

    def _end_of_run(self, place: int) -> int:
        match = _RUN.match(self._text, place)
        return match.end() if match else place + 1

    def _goes_on(self, mark: str, place: int) -> bool:
        """Return whether a run that is too long to be one, and has been read, goes on at `place`."""
        return place == 0 and self._long_run == mark

    def _code(self, place: int) -> Node | None:
        text, end = self._text, place
        if self._goes_on("`", place):
            return self._plain(place, self._end_of_run(place))
        for ticks in _TICKS.finditer(text, place):
            if ticks.start() > place + MAX_SPAN:
                break
            if ticks.end() == len(text) and not self._ended and len(text) - ticks.start() <= MAX_SPAN:
                return None
            if ticks.start() == place:
                end = ticks.end()
            elif len(ticks[0]) == end - place:
                inside = text[end : ticks.start()].replace("\n", " ")
                if inside.strip(" ") and inside[0] == inside[-1] == " ":
                    inside = inside[1:-1]
                return Node(inside, place, ticks.end(), CODE)
        return None if self._needs_more(place) else self._plain(place, end - place)

    def _backslash_or_dollar(self, place: int) -> Node | None:
        pair_, following = self._text[place : place + 2], self._text[place + 1 : place + 2]
        if not following.strip("\n") and place + 2 >= len(self._text):
            return self._plain(place) if self._ended else None
        if pair_ in _FORMULAS:
            end = self._text.find(_FORMULAS[pair_], place + 2, place + MAX_SPAN)
            inside = self._text[place + 2 : max(end, 0)]
            if re.search(r"\w", inside):
                return self._plain(place, end + 2 - place)
            if end < 0 and self._needs_more(place):
                return None
        if pair_[0] == "\\" and (following in _ASCII_PUNCTUATION or following == "\n"):
            return Node(following, place, place + 2)
        return self._plain(place)

    def _entity(self, place: int) -> Node | None:
        if match := _ENTITY.match(self._text, place):
            name = match[0]
            if name[1] == "#" or name[1:] in html5:
                return Node(re.sub(r"[\t\n]", " ", inert(unescape(name))), place, match.end())
        elif not self._ended and _OPEN_ENTITY.fullmatch(self._text, place):
            return None
        return self._plain(place)

    def _angle(self, place: int) -> Node | None:
        end = place + MAX_SPAN
        if match := _AUTOLINK.match(self._text, place, end):
            address = inert(match[1])
            url = link(address if ":" in address else f"mailto:{address}")
            return Node(address, place, match.end(), LINK + url)
        if match := _HTML.match(self._text, place, end):
            return self._plain(place, match.end() - place)
        if self._needs_more(place) and _OPEN_ANGLE.fullmatch(self._text, place):
            return None
        return self._plain(place)

    def _open(self, char: str, place: int) -> Node | None:
        if char == "!" and place + 1 == len(self._text) and not self._ended:
            return None
        mark = self._text[place : place + 2] if char == "!" else char
        if mark not in ("[", "!["):
            return self._plain(place)
        bracket = Bracket(mark, place, place + len(mark), index=len(self.nodes))
        self.brackets.append(bracket)
        return bracket

    def _close(self, place: int) -> Node | None:
        """Return the node of a `]`: the end of a link if it is one, and if `(address)` follows."""
        if not self.brackets:
            return self._plain(place)
        opener, limit = self.brackets[-1], self.brackets[-1].place + MAX_SPAN
        if place < limit and self.may_link(opener):
            if match := TAIL.match(self._text, place + 1, limit):
                self.brackets.pop()
                return self._link(opener, place, match)
            if self._needs_more(opener.place) and OPEN_TAIL.fullmatch(self._text, place + 1):
                return None
            if place + 1 == len(self._text) and self._needs_more(opener.place):
                return None
        self.brackets.pop()
        return self._plain(place)

    def may_link(self, opener: Bracket) -> bool:
        """Return whether `opener` may begin a link: links hold no links."""
        return opener.text == "![" or opener.place >= self._n_without_links

    def _link(self, opener: Bracket, place: int, tail: re.Match[str]) -> Node:
        """Return the node that ends a link from `opener` to `place`, and shows its address."""
        address = target(tail[1])
        inside = list[Run]()
        while self.runs and self.runs[-1].place > opener.place:
            inside.append(self.runs.pop())
        pair(reversed(inside))
        if opener.text == "[":
            self._n_without_links = opener.place
        opener.text = ""
        text = "".join(node.text for node in self.nodes[opener.index :])
        opener.starts.append(LINK + link(address))
        shown = address if not text else "" if text in (address, address.removeprefix("mailto:")) else f" ({address})"
        end = Node(shown if address else "", place, tail.end(), DIM)
        end.ends.append(LINK + link(address))
        return end

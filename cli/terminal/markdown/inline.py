"""Reads the spans of a paragraph that comes in pieces; hands out each text when its style is certain."""

from collections import Counter
from collections.abc import Iterable, Iterator

from mistral_mlx.cli.terminal.highlight import no_color
from mistral_mlx.cli.terminal.style import CODE, UNDERLINE, Style

from .emphasis import pair
from .node import MAX_SPAN, Node
from .reader import LINK, SPECIAL, Reader

Segment = tuple[str, Style]


class Inline:
    """One paragraph in the style `base`; `held` is its source whose style is not certain yet."""

    def __init__(self, base: str = "") -> None:
        self.held = ""
        self._base = base
        self._before = ""  # the character before what is held
        self._n_seen = 0  # characters of what is held that need not be shown again
        self._long_run = ""  # the mark of a run before what is held that is too long to be one
        self._n_before = 0  # marks of a run at the start of what is held that have been paired
        self._waits_for_mark = False  # plain text alone changes nothing

    @property
    def is_new(self) -> bool:
        """Whether it has got no text yet."""
        return not (self._before or self.held)

    def feed(self, text: str) -> list[Segment]:
        """Return the text that has become certain, with its style."""
        is_plain = not SPECIAL.search(text)
        if not text:
            return []
        if is_plain and not self.held:
            self._before, self._long_run = text[-1], ""
            shown, self._n_seen = text[self._n_seen :], max(0, self._n_seen - len(text))
            return [(shown, Style(self._base))]
        self.held += text
        if is_plain and self._waits_for_mark and len(self.held) <= MAX_SPAN:
            return []
        return self._read(ended=False)

    def end(self) -> list[Segment]:
        """Return the text that is held back: the paragraph has ended."""
        return self._read(ended=True)

    def see(self, n: int = 0) -> None:
        """Do not show again what is held back, and the next `n` characters: they have been seen as they are."""
        self._n_seen = max(self._n_seen, len(self.held)) + n

    def _read(self, *, ended: bool) -> list[Segment]:
        reader = Reader(self.held, self._before, ended=ended, long_run=self._long_run, n_before=self._n_before)
        certain, n_paired = _certain(reader, ended=ended)
        nodes = [node for node in reader.nodes if node.end <= certain]
        self._waits_for_mark = reader.stop == len(self.held)
        if nodes:
            last = nodes[-1]
            is_long = last.end - last.place > MAX_SPAN or (last.place == 0 and last.text[:1] == self._long_run)
            self._long_run = last.text[:1] if is_long and last.text[:1] in "*_~`" else ""
        if certain:
            self._before = (self._before + self.held)[len(self._before) + certain - n_paired - 1 :][:1]
            self.held, self._n_before = self.held[certain:], n_paired
        segments = list(_segments(map(self._unseen, nodes) if self._n_seen else nodes, self._base))
        self._n_seen = max(0, self._n_seen - certain)
        return segments

    def _unseen(self, node: Node) -> Node:
        """Leave out of `node` what has been seen."""
        if node.place < self._n_seen:
            n_unseen = max(0, node.end - self._n_seen - (node.text != "" and node.sgr == CODE))
            node.text = node.text[len(node.text) - min(n_unseen, len(node.text)) :]
        return node


def segments(text: str, base: str = "") -> list[Segment]:
    """Return the texts and styles of a whole paragraph."""
    inline = Inline(base)
    return inline.feed(text) + inline.end()


def _certain(reader: Reader, *, ended: bool) -> tuple[int, int]:
    """Pair the runs whose meaning is certain; return the place of the first mark whose meaning is not.

    With it comes how many marks of the same run stand before it.
    """
    if ended:
        pair(reader.runs)
        return reader.stop, 0
    live = (b.place for b in reader.brackets if reader.may_link(b) and reader.stop - b.place <= MAX_SPAN)
    limit = next(live, reader.stop)
    openers = pair(run for run in reader.runs if run.place < limit)
    first = next((run for run in openers if limit - run.opens_at <= MAX_SPAN), None)
    return (first.opens_at, first.n_closing) if first else (limit, 0)


def _segments(nodes: Iterable[Node], base: str) -> Iterator[Segment]:
    """Yield the texts of `nodes` in the style of all spans that they are in; without colours, code keeps its marks."""
    depths = Counter[str]()
    is_plain = no_color()
    for node in nodes:
        depths.subtract(node.ends)
        if node.text and node.sgr == CODE and is_plain:
            yield _style(f"`{node.text}`", "", depths, base)
        elif node.text:
            yield _style(node.text, node.sgr, depths, base)
        depths.update(node.starts)


def _style(text: str, own: str, depths: Counter[str], base: str) -> Segment:
    names = [base, *sorted(name for name, depth in depths.items() if depth > 0), own]
    urls = [name.removeprefix(LINK) for name in names if name.startswith(LINK)]
    numbers = [number for name in names if not name.startswith(LINK) for number in name.split(";") if number]
    if urls:
        numbers.append(UNDERLINE)
    return text, Style(";".join(dict.fromkeys(numbers)), urls[-1] if urls else "")

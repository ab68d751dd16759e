"""The parts of a paragraph: texts, delimiter runs and brackets, each with its place in the source."""

from dataclasses import dataclass, field

from mistral_mlx.cli.terminal.style import ITALIC

MAX_SPAN = 300  # the longest span, in characters: how far back a closing mark finds its opening one


@dataclass(slots=True)
class Node:
    """A text that is shown, from `place` to `end` in the source."""

    text: str
    place: int
    end: int
    sgr: str = ""  # its own style, besides those of the spans that it is in
    starts: list[str] = field(default_factory=list)  # styles that begin after it, such as BOLD
    ends: list[str] = field(default_factory=list)  # styles that end before it


@dataclass(slots=True)
class Run(Node):
    """A run of `*` or `_`, or a pair of `~`; `text` are those that are still to be paired."""

    can_open: bool = False
    can_close: bool = False
    n_before: int = 0  # marks before `place` that have been paired

    @property
    def length(self) -> int:
        return self.end - self.place + self.n_before

    @property
    def n_closing(self) -> int:
        """How many of its marks have closed something: the first ones."""
        return sum(1 if style == ITALIC else 2 for style in self.ends)

    @property
    def opens_at(self) -> int:
        """The place of the marks that may open something."""
        return self.place + self.n_closing


@dataclass(slots=True)
class Bracket(Node):
    """A `[` or `![` that may begin a link; `index` is its place among the nodes."""

    index: int = 0

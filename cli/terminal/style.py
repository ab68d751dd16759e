"""Sets colours, weights and links of text on a terminal."""

from typing import NamedTuple

RESET = "\x1b[0m"
BOLD, DIM, ITALIC, UNDERLINE, STRIKE = "1", "2", "3", "4", "9"
CODE = "35"  # magenta is readable on black and on white


class Style(NamedTuple):
    """How text looks: the numbers of its escape sequence, such as "1;36", and where it leads."""

    sgr: str = ""
    url: str = ""  # of printable ASCII


PLAIN = Style()


def sgr(text: str, style: str) -> str:
    """Return `text` between the escape sequences that set `style`, such as "1;36", and reset it."""
    return f"\x1b[{style}m{text}{RESET}" if style and text else text


def styled(text: str, style: Style) -> str:
    """Return `text` between the escape sequences of `style`; a link is an OSC 8 sequence."""
    shown = sgr(text, style.sgr)
    return f"\x1b]8;;{style.url}\x1b\\{shown}\x1b]8;;\x1b\\" if style.url and text else shown

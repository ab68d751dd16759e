"""Sets colours and weights of text on a terminal."""

RESET = "\x1b[0m"


def sgr(text: str, style: str) -> str:
    """Return `text` between the escape sequences that set `style`, such as "1;36", and reset it."""
    return f"\x1b[{style}m{text}{RESET}" if style and text else text

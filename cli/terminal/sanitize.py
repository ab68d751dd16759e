"""Text made harmless for a terminal: what a model writes, or a file is called, can never control the screen."""

import re

# C0 but tab and line feed, DEL, C1; and the bidirectional controls, which make text read as what it is not.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    """Return `text` with every control character but tab and line feed made visible."""
    return _CONTROL.sub(lambda match: _picture(ord(match.group())), text)


def _picture(code: int) -> str:
    """Return a visible stand-in: the picture of a C0 control or DEL, the number of any other."""
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<{code:02x}>"

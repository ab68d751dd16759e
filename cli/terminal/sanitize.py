"""Makes text inert, so that neither a model nor a file name can control the terminal."""

import re

# C0 except tab and line feed, DEL, C1, and the bidirectional controls, which can make text look like another text.
_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def inert(text: str) -> str:
    """Return `text` with visible signs for all control characters except tab and line feed."""
    return _CONTROL.sub(lambda match: _picture(ord(match.group())), text)


def _picture(code: int) -> str:
    """Return the picture of a C0 control character or DEL, or the number of another one."""
    if code < 0x20:
        return chr(0x2400 + code)
    return "\u2421" if code == 0x7F else f"<{code:02x}>"

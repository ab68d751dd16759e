"""Reads where a link leads, and makes it fit for a terminal: the model's text is untrusted.

Only http, https and mailto become links (OSC 8). The address also stands behind the text, unless it is the text: one
sees where a link leads before following it, and reads it on a terminal that knows no links.
"""

import os
import re
from html import unescape
from urllib.parse import quote

from mistral_mlx.cli.terminal.sanitize import inert

MAX_URL = 2000

_TEXT = r"(?:[^\s()\\]|\\[^\s]|\\(?=\s))"
_NESTED = rf"(?:{_TEXT}|\((?:{_TEXT}|\({_TEXT}*\))*\))*"
_TARGET = rf"<(?:[^<>\n\\]|\\.)*>|(?!<){_NESTED}"
_TITLE = r'"(?:[^"\\]|\\.)*"|' + r"'(?:[^'\\]|\\.)*'" + r"|\((?:[^()\\]|\\.)*\)"
TAIL = re.compile(rf"\(\s*({_TARGET})(?:\s+(?:{_TITLE}))?\s*\)", re.DOTALL)
# The beginning of what may become one.
OPEN_TAIL = re.compile(
    rf"\(\s*(?:<(?:[^<>\n\\]|\\.?)*>?|(?!<)(?:[^\s\\]|\\.?)*)"
    rf"(?:\s+(?:{_TITLE}|\"(?:[^\"\\]|\\.?)*|'(?:[^'\\]|\\.?)*|\((?:[^()\\]|\\.?)*)?)?\s*",
    re.DOTALL,
)
_ESCAPE = re.compile(r"\\([!-/:-@\[-`{-~])")
_SCHEME = re.compile(r"(?:https?://|mailto:)[^\s]", re.IGNORECASE)


def target(written: str) -> str:
    """Return the address that is written as `written` in a link, without control characters."""
    address = _ESCAPE.sub(r"\1", written.removeprefix("<").removesuffix(">"))
    return re.sub(r"\s", " ", inert(unescape(address)))


def link(address: str) -> str:
    """Return the URL of an OSC 8 sequence that leads to `address`; "" if none should."""
    if os.environ.get("TERM") == "linux" or len(address) > MAX_URL or not _SCHEME.match(address):
        return ""
    url = quote(address, safe="!#$%&'()*+,-./:;=?@_~")
    return url if len(url) <= MAX_URL else ""

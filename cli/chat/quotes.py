"""Messages of several lines between three quotes and three quotes."""

QUOTES = '"""'


def is_quote_open(text: str) -> bool:
    """Whether `text` begins with three quotes and does not end with three others."""
    text = text.strip()
    return text.startswith(QUOTES) and (len(text) < 2 * len(QUOTES) or not text.endswith(QUOTES))


def unquoted(text: str) -> str:
    """Return `text` without the three quotes around it, if it has them."""
    if not text.lstrip().startswith(QUOTES):
        return text
    inner = text.lstrip()[len(QUOTES) :].rstrip()
    return inner.removesuffix(QUOTES).strip("\n")

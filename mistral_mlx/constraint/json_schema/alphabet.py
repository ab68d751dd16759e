"""Sets of characters, and how JSON spells them inside a string: each character in exactly one way.

Free text never holds a control character without a short escape, so `\\u` is never needed there, half a
surrogate pair cannot be written, and two spellings of one key cannot exist.
"""

LAST = 0x10FFFF
Ranges = tuple[tuple[int, int], ...]  # of code points: sorted, inclusive, apart from each other

SHORT = {0x22: '"', 0x5C: "\\", 0x08: "b", 0x0C: "f", 0x0A: "n", 0x0D: "r", 0x09: "t"}
SURROGATES = (0xD800, 0xDFFF)


def joined(*sets: Ranges) -> Ranges:
    """Return the union of sets of characters."""
    found: list[tuple[int, int]] = []
    for low, high in sorted(pair for one in sets for pair in one):
        if found and low <= found[-1][1] + 1:
            found[-1] = found[-1][0], max(found[-1][1], high)
        else:
            found.append((low, high))
    return tuple(found)


def inverted(one: Ranges) -> Ranges:
    """Return all characters that are not in the set."""
    found, start = [], 0
    for low, high in one:
        if low > start:
            found.append((start, low - 1))
        start = high + 1
    if start <= LAST:
        found.append((start, LAST))
    return tuple(found)


def has(one: Ranges, code: int) -> bool:
    """Say whether a character is in the set."""
    return any(low <= code <= high for low, high in one)


RAW = inverted(((0, 0x1F), (0x22, 0x22), (0x5C, 0x5C), (0x7F, 0x7F), SURROGATES))  # stand for themselves in free text
CONTROLS = tuple(code for code in (*range(0x20), 0x7F) if code not in SHORT)


def spelled(one: Ranges, *, wide: bool) -> str:
    """Return the expression of one character of the set as JSON spells it; `wide` adds all control characters."""
    parts = []
    if raw := _common(one, RAW):
        parts.append("[" + "".join(f"{_code(low)}-{_code(high)}" for low, high in raw) + "]")
    if short := "".join(_code(ord(letter)) for code, letter in SHORT.items() if has(one, code)):
        parts.append(rf"\x5c[{short}]")
    if wide:
        parts += [literal(chr(code)) for code in CONTROLS if has(one, code)]
    return f"(?:{'|'.join(parts)})" if parts else NOTHING


def literal(text: str) -> str:
    """Return the expression of exactly `text` as JSON spells it inside a string."""
    return "".join(_literal_character(ord(c)) for c in text)


def _literal_character(code: int) -> str:
    if code in SHORT:
        return rf"\x5c{_code(ord(SHORT[code]))}"
    if code < 0x20:
        return rf"\x5cu{code:04x}"
    return chr(code) if chr(code).isascii() and chr(code).isalnum() else _code(code)


def _common(one: Ranges, other: Ranges) -> Ranges:
    return inverted(joined(inverted(one), inverted(other)))


def _code(code: int) -> str:
    return rf"\x{{{code:x}}}"


NOTHING = r"[^\x{0}-\x{10ffff}]"  # an expression that matches no text
EVERYTHING: Ranges = ((0, LAST),)
CHARACTER = spelled(EVERYTHING, wide=False)
WIDE_CHARACTER = spelled(EVERYTHING, wide=True)

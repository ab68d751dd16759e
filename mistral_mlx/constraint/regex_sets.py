"""Sets and classes of letters in a regular expression: `[a-z]`, `[^\\s]`, `\\w`."""

import re

from .regex_reader import Reader, escaped, leaves_nothing, written_ranges

# Of each class of letters, what a set may hold of it, and what a set `[^…]` has to leave out. The first is part of
# what Python means, the second holds all of it. Both are for Unicode 14, the oldest that a Python in use knows.
_WORD = r"[\p{L}\p{N}_&&\p{age:14.0}]"
_CLASSES = {
    "d": ("0-9", r"\d"),
    "D": (r"\D", "[^0-9]"),
    "s": (r" \t\n\r\f\v", r"\s\x{1c}-\x{1f}"),
    "S": (r"[^\s\x{1c}-\x{1f}]", r"[^ \t\n\r\f\v]"),
    "w": (_WORD, r"\w\p{N}"),
    "W": (r"[[^\w\p{N}]&&\p{age:14.0}]", rf"[^{_WORD}]"),
}


DOTS = "\u0130\u0131"  # I with a dot and i without one: for Python they are i where case does not count, for Rust not


def letter_set(reader: Reader) -> str:
    """Read a set, behind its `[`."""
    opened = reader.at - 1
    if negated := reader.peek() == "^":
        reader.take()
    ranges: list[tuple[str, str]] = []
    classes: list[tuple[str, str]] = []
    first = True
    while first or reader.peek() != "]":
        first = False
        _refuse_operators(reader, opened)
        if reader.peek() == "\\" and reader.peek(2)[1:] in tuple("dDsSwWpP"):
            reader.take()
            classes.append((reader.peek(), letter_class(reader, wide=negated)))
            if reader.peek() == "-" and reader.peek(2) != "-]":
                raise reader.fault("a range that begins with a class of letters")
        else:
            ranges.append(_range(reader, opened))
    reader.take()
    names = {name for name, _ in classes}
    everything = any(name in names and name.upper() in names for name in "dsw")  # such as [\s\S]
    if negated and (everything or leaves_nothing(ranges)):
        raise reader.fault("a set that leaves out all letters", opened)
    if everything:
        return "(?s:.)"
    if negated and reader.ignoring_case and any(low <= letter <= high for low, high in ranges for letter in DOTS):
        ranges.append(("i", "i"))  # so they are for Python
    return _joined_set(reader, written_ranges(ranges), [text for _, text in classes], negated=negated)


def letter_class(reader: Reader, *, wide: bool) -> str:
    """Read what follows the backslash of `\\w` or `\\p{L}` and return what a set holds of it."""
    at, letter = reader.at - 1, reader.take()
    if letter in _CLASSES:
        return _CLASSES[letter][wide]
    name = re.compile(r"\{\^?([A-Za-z_]+)\}|([A-Z])").match(reader.text, reader.at)
    if not name:
        raise reader.fault(f"\\{letter} without the name of a property; write, for example, \\p{{Lu}}", at)
    reader.at = name.end()
    inverted = (letter == "P") != name[0].startswith("{^")
    return f"\\{'P' if inverted else 'p'}{{{name[1] or name[2]}}}"


def _joined_set(reader: Reader, letters: str, classes: list[str], *, negated: bool) -> str:
    inside = "".join(classes)
    if negated:
        if reader.ignoring_case:
            return rf"(?i:[^{letters}{inside}{DOTS}])"
        return f"[^{letters}{inside}]"
    if not reader.ignoring_case:
        return f"[{letters}{inside}]"
    both = [f"(?i:[{letters}])"] * bool(letters) + [f"[{inside}]"] * bool(inside)  # \w does not take on other letters
    return f"(?:{'|'.join(both)})"


def _range(reader: Reader, opened: int) -> tuple[str, str]:
    """Read a letter of a set or a range of them: its first and its last one."""
    at = reader.at
    low = _set_letter(reader, opened)
    if reader.peek() != "-" or reader.peek(2) in ("-]", "-"):
        return low, low
    reader.take()
    if reader.peek() == "\\" and reader.peek(2)[1:] in tuple("dDsSwWpP"):
        raise reader.fault("a range that ends with a class of letters")
    _refuse_operators(reader, opened)
    high = _set_letter(reader, opened)
    if low > high:
        raise reader.fault("a range whose end is before its start", at)
    return low, high


def _set_letter(reader: Reader, opened: int) -> str:
    at, letter = reader.at, reader.take()
    if not letter:
        raise reader.fault("a [ without its ]", opened)
    if letter != "\\":
        return letter
    if reader.peek() == "b":
        reader.take()
        return "\b"
    if reader.peek().isdigit() and reader.peek() != "0":
        raise reader.fault(f"\\{reader.peek()} is not supported", at)
    return escaped(reader, at)


def _refuse_operators(reader: Reader, opened: int) -> None:
    """Refuse what is an operation in some programs and some letters in others."""
    if reader.peek(2) in ("&&", "--", "~~", "||", "[:", "[=", "[."):
        raise reader.fault(f"{reader.peek(2)} inside [ ]; put a \\ before its marks if they are meant as they stand")

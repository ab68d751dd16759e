"""Reads grammars in the notation of llama.cpp (GBNF).

Each text is one of letters, that is of code points of Unicode: `"ab"` and `"a" "b"` are the same, and where a part
ends is not said by how much a part before it could take.
"""

import re

from .grammar_tokens import Token, TokenReader, tokens_of
from .regex_reader import leaves_nothing, written_ranges
from .rules import Choice, Expression, GrammarFault, Name, Node, Repeat, Sequence, Word

MAX_TIMES = 100_000
_NOT = {"token": "an answer is a text, without control tokens"}
_ANY = Expression("(?s:.)")
_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+|\#[^\r\n]*) | (?P<line>\r\n?|\n) | (?P<name>[A-Za-z0-9_-]+) | (?P<is>::=)
    | (?P<word>"(?:[^"\\]|\\.)*") | (?P<set>\[(?:[^]\\]|\\.)*\]) | (?P<times>[*+?]|\{[^{}]{0,20}\})
    | (?P<or>\|) | (?P<close>\)) | (?P<open>\() | (?P<any>\.) | (?P<token>!?<[^<>\s]*>)
    | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(
    r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([nrt])|([^a-zA-Z0-9\s])|.?)", re.DOTALL
)
_TIMES = re.compile(r"\{\s*([0-9]{1,6})\s*(?:(,)\s*([0-9]{1,6})?\s*)?\}")


def gbnf_rules(text: str) -> dict[str, Node]:
    """Return the rules of a grammar, of which `root` is the first. Raises GrammarFault."""
    reader = TokenReader(tokens_of(text, _TOKEN), _NOT)
    rules: dict[str, Node] = {}
    while reader.skip_lines().kind != "end":
        name = reader.take("name", "the name of a rule")
        reader.take("is", f"::= behind {name.text}")
        if name.text in rules:
            raise GrammarFault(f"has the rule {name.text} twice, again in line {name.line}")
        reader.skip_lines()
        rules[name.text] = _alternatives(reader, depth=0)
        if reader.next.kind not in ("line", "end"):
            reader.unexpected("the end of the rule")
    return rules


def _alternatives(reader: TokenReader, depth: int) -> Node:
    reader.check_nesting(depth)
    options = [_sequence(reader, depth)]
    while reader.takes("or"):
        reader.skip_lines()
        options.append(_sequence(reader, depth))
    return options[0] if len(options) == 1 else Choice(tuple(options))


def _sequence(reader: TokenReader, depth: int) -> Node:
    parts: list[Node] = []
    while True:
        if depth:
            reader.skip_lines()
        if reader.next.kind == "times":
            if not parts:
                reader.unexpected("what is to be repeated")
            parts[-1] = Repeat(parts[-1], *_times(reader.take("times", "")))
            if reader.next.kind == "times":
                reader.unexpected("one repetition of each part; put the first into a group")
        elif reader.next.kind in ("line", "end", "is", "or", "close"):
            return parts[0] if len(parts) == 1 else Sequence(tuple(parts))
        else:
            parts.append(_part(reader, depth))
        reader.count()


def _part(reader: TokenReader, depth: int) -> Node:
    token = reader.next
    if token.kind not in ("name", "word", "set", "any", "open"):
        reader.unexpected("a part of the rule")
    reader.at += 1
    match token.kind:
        case "name":
            return Name(token.text, token.line)
        case "word":
            return Word(_letters(token.text[1:-1], token.line))
        case "set":
            return _set(token)
        case "any":
            return _ANY
    inner = _alternatives(reader, depth + 1)
    reader.take("close", f") for the ( in line {token.line}")
    return inner


def _times(token: Token) -> tuple[int, int | None]:
    if token.text in "*+?":
        return int(token.text == "+"), 1 if token.text == "?" else None
    match = _TIMES.fullmatch(token.text)
    if not match:
        raise GrammarFault(f"has {token.text!r} in line {token.line}; write, for example, {{2}}, {{2,}} or {{2,3}}")
    least = int(match[1])
    most = (int(match[3]) if match[3] else None) if match[2] else least
    if most is not None and most < least:
        raise GrammarFault(f"has the repetition {token.text} in line {token.line}, whose end is before its start")
    if max(least, most or 0) > MAX_TIMES:
        raise GrammarFault(f"has the repetition {token.text} in line {token.line}; give at most {MAX_TIMES:,}")
    return least, most


def _set(token: Token) -> Node:
    inside = token.text[1:-1]
    negated = inside.startswith("^")
    ranges: list[tuple[str, str]] = []
    at = int(negated)
    while at < len(inside):
        low, at = _letter(inside, at, token.line)
        if inside[at : at + 1] == "-" and at + 1 < len(inside):
            high, at = _letter(inside, at + 1, token.line)
            if high < low:
                raise GrammarFault(f"has the range {low}-{high} in line {token.line}, whose end is before its start")
        else:
            high = low
        ranges.append((low, high))
    if not ranges or (negated and leaves_nothing(ranges)):
        raise GrammarFault(f"has the set {token.text} in line {token.line}, in which no letter is")
    return Expression(f"[{'^' * negated}{written_ranges(ranges)}]")


def _letters(text: str, line: int) -> str:
    found, at = [], 0
    while at < len(text):
        letter, at = _letter(text, at, line)
        found.append(letter)
    return "".join(found)


def _letter(text: str, at: int, line: int) -> tuple[str, int]:
    """Return the letter at `at`, which may be written as an escape, and where the next one is."""
    letter, end = text[at], at + 1
    if letter == "\\":
        match = _ESCAPE.match(text, at)
        assert match
        code = match[1] or match[2] or match[3]
        if not match.lastindex or (code and int(code, 16) > 0x10FFFF):
            raise GrammarFault(f"has {match[0]!r} in line {line}, which is no letter")
        end = match.end()
        letter = chr(int(code, 16)) if code else {"n": "\n", "r": "\r", "t": "\t"}.get(match[4], match[5])
    if "\ud800" <= letter <= "\udfff":
        raise GrammarFault(f"has half a letter, \\u{ord(letter):04x}, in line {line}")
    return letter, end

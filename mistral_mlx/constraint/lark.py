"""Reads grammars in the Lark notation of llguidance.

Only what says which texts there are is taken. Refused by name are: control tokens (`<|x|>`, `<[5]>`), because an answer
is a text; `[lazy]` and other attributes, which bind the way to an answer but not the answer; `&` and `~`, which may
leave an answer without an end, or let bytes in that are no letters; files, blocks such as `%json`, and other grammars.
"""

import re
from dataclasses import dataclass, field

from .grammar_tokens import Token, TokenReader, tokens_of
from .regex import translated
from .regex_reader import PatternFault, written
from .rules import (
    Choice,
    Expression,
    GrammarFault,
    Name,
    Node,
    Repeat,
    Sequence,
    Size,
    Word,
    children,
)

IGNORED = "%IGNORE"
MAX_TIMES = 100_000
_TOKEN = re.compile(
    r"""(?P<blank>[ \t]+|(?:\#|//)[^\r\n]*) | (?P<line>\r\n?|\n) | (?P<name>[_A-Za-z][_A-Za-z0-9-]*)
    | (?P<word>"(?:[^"\\\r\n]|\\[^\r\n])*"i?) | (?P<pattern>/(?:[^/\\\r\n]|\\[^\r\n])+/[a-z]*)
    | (?P<times>[*+?]|\{[0-9, \t]{0,20}\}|~[ \t]*[0-9]{1,9}(?:[ \t]*\.\.[ \t]*[0-9]{1,9})?) | (?P<range>\.\.)
    | (?P<alias>->) | (?P<colon>:(?!:)) | (?P<or>\|) | (?P<open>[(\[]) | (?P<close>[)\]]) | (?P<comma>,) | (?P<dot>\.)
    | (?P<token><[^<>\s]+>) | (?P<grammar>@[A-Za-z0-9_-]*) | (?P<operator>[&~]) | (?P<brace>[{}]) | (?P<quote>')
    | (?P<statement>%[A-Za-z_]+) | (?P<mark>!|::) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)
_TIMES = re.compile(r"[{~]\s*([0-9]*)\s*(?:(,|\.\.)\s*([0-9]*)\s*)?\}?")
_ESCAPE = re.compile(r'\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([bfnrt])|(["\\/\'])|.?)')
_CONTROL = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_NOT = {
    "token": "an answer is a text, without control tokens",
    "grammar": "there is only this one grammar",
    "operator": "& and ~ are not supported",
    "statement": "only %ignore and %import common are supported",
    "mark": "it is not supported",
    "quote": 'write strings as "…"',
    "brace": "templates are not supported",
    "dot": "priorities are not supported",
}


@dataclass
class LarkGrammar:
    """Rules and terminals by name; terminals have names in capitals. `start` is the first rule.

    The terminal IGNORED is what may stand between other ones.
    """

    rules: dict[str, Node] = field(default_factory=dict)
    imported: dict[str, str] = field(default_factory=dict)  # such as "INT": "common.INT"


def is_terminal(name: str) -> bool:
    return name.isupper()


def read_lark(text: str) -> LarkGrammar:
    """Return what a grammar says. Raises GrammarFault."""
    reader = TokenReader(tokens_of(text, _TOKEN), _NOT)
    grammar = LarkGrammar()
    while reader.skip_lines().kind != "end":
        if reader.next.kind == "statement":
            _statement(reader, grammar)
        else:
            _definition(reader, grammar)
        if reader.next.kind not in ("line", "end"):
            reader.unexpected("the end of the rule")
    return grammar


def _statement(reader: TokenReader, grammar: LarkGrammar) -> None:
    match reader.next.text:
        case "%ignore":
            reader.at += 1
            ignored = (_alternatives(reader, depth=0), *children(grammar.rules.get(IGNORED, Choice(()))))
            grammar.rules[IGNORED] = Choice(ignored)
        case "%import":
            reader.at += 1
            _import(reader, grammar)
        case "%llguidance" if reader.takes("statement", "times") and reader.tokens[reader.at - 1].text == "{}":
            pass  # says only for which program the grammar is
        case _:
            reader.unexpected("")


def _import(reader: TokenReader, grammar: LarkGrammar) -> None:
    """Read `common.INT`, `common.INT -> NUMBER` or `common (INT, WS)`."""
    source = reader.take("name", "common")
    if source.text != "common":
        raise GrammarFault(f"imports {source.text} in line {source.line}; only %import common is supported")
    if reader.takes("open"):
        parts = [reader.take("name", "the name of a terminal")]
        while reader.takes("comma"):
            parts.append(reader.take("name", "the name of a terminal"))
        reader.take("close", "the ) of the list")
        pairs = [(part, part) for part in parts]
    else:
        reader.take("dot", "a . behind common")
        part = reader.take("name", "the name of a terminal")
        pairs = [(reader.take("name", "a name") if reader.takes("alias") else part, part)]
    for name, part in pairs:
        if not (is_terminal(name.text) and is_terminal(part.text)):
            raise GrammarFault(f"imports {part.text} in line {part.line}; terminals have names in capitals")
        _add(grammar, name, Expression("imported"))
        grammar.imported[name.text] = f"common.{part.text}"


def _definition(reader: TokenReader, grammar: LarkGrammar) -> None:
    if reader.next.text in ("!", "?"):  # say only what a tree of the text would look like
        reader.at += 1
    name = reader.take("name", "the name of a rule")
    if name.text not in (name.text.lower(), name.text.upper()):
        raise GrammarFault(f"has {name.text} in line {name.line}; write rules in small letters, terminals in capitals")
    if reader.next.text == "[":
        attribute = reader.tokens[reader.at + 1].text
        raise GrammarFault(f"has the attribute {attribute} in line {name.line}; attributes are not supported")
    reader.take("colon", f": behind {name.text}")
    _add(grammar, name, _alternatives(reader, depth=0))


def _add(grammar: LarkGrammar, name: Token, rule: Node) -> None:
    if name.text in grammar.rules:
        raise GrammarFault(f"has {name.text} twice, again in line {name.line}")
    grammar.rules[name.text] = rule


def _alternatives(reader: TokenReader, depth: int) -> Node:
    reader.check_nesting(depth)
    options = [_sequence(reader, depth)]
    while _takes_or(reader):
        options.append(_sequence(reader, depth))
    return options[0] if len(options) == 1 else Choice(tuple(options))


def _takes_or(reader: TokenReader) -> bool:
    """Take a `|`, which may stand at the beginning of one of the next lines."""
    at = reader.at
    reader.skip_lines()
    if reader.takes("or"):
        return True
    reader.at = at
    return False


def _sequence(reader: TokenReader, depth: int) -> Node:
    parts: list[Node] = []
    while True:
        if depth:
            reader.skip_lines()
        if reader.next.kind in ("line", "end", "or", "close"):
            break
        if reader.takes("alias"):  # names a branch of a tree
            reader.take("name", "a name")
            break
        parts.append(_part(reader, depth))
        if reader.next.kind == "times":
            parts[-1] = Repeat(parts[-1], *_times(reader.take("times", "")))
        reader.count()
    return parts[0] if len(parts) == 1 else Sequence(tuple(parts))


def _part(reader: TokenReader, depth: int) -> Node:
    token = reader.next
    if token.kind not in ("name", "word", "pattern", "open"):
        reader.unexpected("a part of the rule")
    reader.at += 1
    match token.kind:
        case "name":
            return Name(token.text, token.line)
        case "word":
            return _range(reader, token) if reader.takes("range") else _word(token)
        case "pattern":
            return _pattern(token)
    inner = _alternatives(reader, depth + 1)
    closing = reader.take("close", f"the end of the group in line {token.line}")
    if token.text + closing.text not in ("()", "[]"):
        raise GrammarFault(f"has {closing.text} in line {closing.line} for a {token.text}")
    return Repeat(inner, 0, 1) if token.text == "[" else inner


def _times(token: Token) -> tuple[int, int | None]:
    text = token.text
    if text in "*+?":
        return int(text == "+"), 1 if text == "?" else None
    match = _TIMES.fullmatch(text)
    if not match or not (match[1] or match[2]):
        raise GrammarFault(f"has {text!r} in line {token.line}; write, for example, {{2}}, {{2,}} or {{2,3}}")
    least = int(match[1] or 0)
    most = (int(match[3]) if match[3] else None) if match[2] else least
    if max(least, most or 0) > MAX_TIMES:
        raise GrammarFault(f"has the repetition {text} in line {token.line}; give at most {MAX_TIMES:,}")
    if most is not None and most < least:
        raise GrammarFault(f"has the repetition {text} in line {token.line}, whose end is before its start")
    return least, most


def _word(token: Token) -> Word:
    def letter(match: re.Match[str]) -> str:
        if code := match[1] or match[2] or match[3]:
            return chr(min(int(code, 16), 0x110000 - 1)) if int(code, 16) < 0x110000 else "\ud800"
        if not match[4] and not match[5]:
            raise GrammarFault(f"has {match[0]!r} in line {token.line}, which is no letter")
        return _CONTROL.get(match[4], match[5])

    ignoring_case = token.text.endswith("i")
    halves = _ESCAPE.sub(letter, token.text.removesuffix("i")[1:-1])
    text = halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # joins \ud83d\ude00
    if half := re.search("[\ud800-\udfff]", text):
        raise GrammarFault(f"has half a letter, \\u{ord(half[0]):04x}, in line {token.line}")
    return Word(text, ignoring_case)


def _range(reader: TokenReader, first: Token) -> Expression:
    low, high = _word(first), _word(reader.take("word", "the end of the range"))
    if len(low.text) != 1 or len(high.text) != 1 or low.text > high.text or low.ignoring_case or high.ignoring_case:
        raise GrammarFault(f"has a range in line {first.line} that is not one from a letter to a later one")
    return Expression(f"[{written(low.text)}-{written(high.text)}]")


def _pattern(token: Token) -> Expression:
    pattern, _, flags = token.text[1:].rpartition("/")
    if unknown := set(flags) - set("imsu"):
        raise GrammarFault(f"has the flag {min(unknown)} of an expression in line {token.line}; there are i, m and s")
    try:
        expression = translated(pattern, flags, anchors=False)
    except PatternFault as fault:
        raise GrammarFault(f"has the expression {token.text} in line {token.line}: {fault}") from fault
    return Expression(expression.text, Size(expression.size, expression.choices))

"""Cases for what binds an answer: regular expressions, grammars and the short form of a schema.

An accepted one is followed for some steps of a generation, with a vocabulary as large as those of real models. There
llguidance may say that a limit is reached; it must not need long, nor let a special token in.
"""

from collections import Counter
from functools import cache
from pathlib import Path
from random import Random

import numpy as np
from fuzz.mutations import TEXTS
from fuzz.reader import Reader
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from mistral_mlx.constraint.grammar import gbnf_grammar, lark_grammar, regex_grammar
from mistral_mlx.constraint.limits import LIMITS
from mistral_mlx.constraint.short_form import schema_of, several

N_TOKENS = 130_000
SPECIAL = 10  # tokens at the start of the vocabulary; the first is the end
STEPS = 12


class Vocabulary:
    """Special tokens, all bytes, and random pieces of text."""

    eos_token_id = 0
    bos_token_id = None
    special_token_ids = tuple(range(SPECIAL))

    def __init__(self) -> None:
        rng = Random(0)
        found = dict.fromkeys(bytes([byte]) for byte in range(256))
        alphabets = ("etaoinshrdlu", "abcxyz01 ", "{}[]()\"'\\:;,. \n", "0123456789", "éüñЖдя漢字かな😀", "aAbB-_+*/=")
        while len(found) < N_TOKENS - SPECIAL:
            letters = rng.choices(rng.choice(alphabets), k=rng.randint(1, 9))
            found[(" " * (rng.random() < 0.4) + "".join(letters)).encode()] = None
        self.tokens = [*(f"\xff[{n}]".encode("latin-1") for n in range(SPECIAL)), *found]

    def __call__(self, text: bytes | str) -> list[int]:
        return [SPECIAL + byte for byte in (text.encode() if isinstance(text, str) else text)]


@cache
def large_vocabulary() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(Vocabulary()), n_vocab=N_TOKENS)


class Followed(Reader):
    """Follows what is accepted. `stops` counts how the generations ended."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.tokens = large_vocabulary()
        self.stops = Counter[str]()

    def follow(self, grammar: str, rng: Random) -> None:
        state = LLMatcher(self.tokens, grammar, log_level=0, limits=LIMITS)
        mask = np.empty((N_TOKENS + 31) // 32, np.int32)
        for _ in range(STEPS):
            state.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
            if state.is_error():
                break
            allowed = np.flatnonzero(np.unpackbits(mask.view(np.uint8), count=N_TOKENS, bitorder="little"))
            assert allowed.size, "no token may follow"
            assert not ((allowed > 0) & (allowed < SPECIAL)).any(), "a special token may follow"
            token = int(rng.choice(allowed))
            if token == 0 or not state.consume_token(token):
                break
        self.stops[state.get_error().split("\n")[0][:40] if state.is_error() else "fine"] += 1


class Regex(Followed):
    """A regular expression. Of each list of pieces the second is for things that are refused, or nearly so."""

    ATOMS = (
        *"aab.xyz/é漢#\"'{}]-$ \n\t", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", r"\p{L}", r"\pN", r"\P{Lu}", "[a-z]",
        "[^a]",
        r"[\w-]", r"[^\W\d]", "[[]", "[]]", "[^]]", r"[\s\S]", r"\x41", r"\u00e9", r"\U0010ffff", r"\0", r"\/", "(|a)",
        "(a|aa)", ".*", ".{0,500}", "a?", "a{300}", "[a-z]{0,99}", "(?s:.)", "(?:a?){30}a{30}", "(a*)*",
    ), (
        *"^$\\", "[", "[a", "[z-a]", r"[^\s\S]", "[&&]", r"\b", r"\x", r"\ud800", r"\1", r"\k", r"\A", r"\Z", "(?i)",
        "(?x)",
        "(?=a)", "(?!a)", "(?<=a)", "(?P=a)", "(?#a)", "()", *TEXTS,
    )  # fmt: skip
    GROUPS = (
        ("(~)", "(?:~)", "(?i:~)", "(?s-i:~)", "(~|~)", "~~", "(~|~|)", "~~~"),
        ("(?>~)", "(~", "~)", "^~$", "(?P<n>~)"),
    )
    TIMES = (
        ("", "", "", "*", "+", "?", "*?", "{2}", "{,3}", "{0,40}", "{1,}", "{200}"),
        ("++", "{3,1}", "{", "{9999999}"),
    )

    def pattern(self, rng: Random) -> str:
        odd = rng.choice((0.0, 0.0, 0.03, 0.3))
        text = "~"
        for _ in range(rng.randrange(14)):
            group = piece(rng, self.GROUPS, odd)
            text = text.replace("~", group + piece(rng, self.TIMES, odd) * group.endswith(")"), 1)
        while "~" in text:
            text = text.replace("~", piece(rng, self.ATOMS, odd).replace("~", "") + piece(rng, self.TIMES, odd), 1)
        return text * rng.choice((2, 20, 300)) if rng.random() < 0.05 else text

    def __call__(self, rng: Random) -> None:
        self.follow(regex_grammar(self.pattern(rng)), rng)


class Lark(Followed):
    """A grammar in Lark's notation."""

    DEFINES, RULES, TERMINALS = ":", ("start", "x", "y", "z"), ("A", "B", "C")
    PIECES = (
        '"a"', '"ab"', '"B"i', r'"\n\x41é"', '""', '"a".."z"', "/[a-z]+/", "/.*/", "/[^a]/", "/(a|b){1,9}/i",
        "/(?s:.)/",
    ), (
        "/a$/", '"', "<|x|>", "<[5]>", "<[*]>", "@other", "%json {}", '%regex {"substring_chars": "ab"}', "~/a/",
        "A & B",
        "a::1", "'a'", "/(?=a)a/", "/", "INT", "WORD", "# end", "// end", "-> name", "|", ")", "]", "x{a}", "\r\n | ",
    )  # fmt: skip
    HEADS = (
        "%import common.INT", "%import common (WORD, WS)", "%ignore /[ \\n]+/", "%llguidance {}", "// nothing",
    ), (
        "%import common.X -> Y", "%ignore WS", '%llguidance {"allow_invalid_utf8": true}', "%declare Q",
        "x[lazy]: /.*a/",
        "y.2: /a/", "?z: x", "%ignore /.*/",
    )  # fmt: skip
    LOOPS = ("*", "+", "?", "{2}", "{0,3}", "{1,}", "{0,300}"), ("~2", "~1..3", "{3,1}", "{99999}", "{}", "{   }", "*+")

    def grammar(self, rng: Random) -> str:
        odd = rng.choice((0.0, 0.0, 0.02, 0.2))
        rules, terminals = self.RULES[: rng.randint(1, 4)], self.TERMINALS[: rng.randint(0, 3)]
        lines = [f"{name}{self.DEFINES} {self.alternatives(rng, rules + terminals, odd)}" for name in rules]
        for index, name in enumerate(terminals):
            lines.append(f"{name}{self.DEFINES} {self.alternatives(rng, terminals[index + 1 :], odd)}")
        lines += [piece(rng, self.HEADS, odd) for _ in range(rng.choice((0, 0, 1, 2)))]
        rng.shuffle(lines)
        text = rng.choice(("\n", "\n", "\r\n")).join(lines)
        if rng.random() < odd:
            at = rng.randrange(len(text))
            text = text[:at] + rng.choice((*TEXTS, "(", "|", "[", "{", "\\", '"')) + text[at + rng.randrange(3) :]
        return text

    def alternatives(self, rng: Random, names: tuple[str, ...], odd: float, depth: int = 0) -> str:
        return " | ".join(self.sequence(rng, names, odd, depth) for _ in range(rng.choice((1, 2, 2, 3))))

    def sequence(self, rng: Random, names: tuple[str, ...], odd: float, depth: int) -> str:
        return " ".join(self.part(rng, names, odd, depth) for _ in range(rng.choice((0, 1, 1, 2, 3, 5))))

    def part(self, rng: Random, names: tuple[str, ...], odd: float, depth: int) -> str:
        if depth < 6 and rng.random() < 0.25:
            inner = f"({self.alternatives(rng, names, odd, depth + 1)})"
        else:
            inner = rng.choice(names) if names and rng.random() < 0.4 else piece(rng, self.PIECES, odd)
        return inner + (piece(rng, self.LOOPS, odd) if rng.random() < 0.25 else "")

    def __call__(self, rng: Random) -> None:
        self.follow(lark_grammar(self.grammar(rng)), rng)


class GBNF(Lark):
    """A grammar in llama.cpp's notation."""

    DEFINES, RULES, TERMINALS = " ::=", ("root", "x", "y-z", "Z1"), ("ws", "a_b")
    PIECES = (
        '"a"', '"ab"', r'"\"\n\x41"', '""', "[a-z]", "[^a]", r"[^\"\\\x00-\x1F]", ".", "[あ-ん]", '"é"', "[ \\t]",
        r"[\]\-]", r'"\u00e9"',
    ), (
        "[]", "[^]", "[z-a]", r'"\ud800"', r'"\q"', "<think>", "!<[5]>", '"', "[", "# end", "|", ")", "::=", "\n",
        "other",
        "@", "\r\n",
    )  # fmt: skip
    HEADS = (
        ("# a comment", "", "q ::=\n  .", "q2 ::= [ \\n]*"),
        ('root ::= "a"', "x ::= x", "x ::= | x", "y-z ::= root?"),
    )
    LOOPS = ("*", "+", "?", "{2}", "{0,3}", "{1,}", "{0,300}"), ("{99999}", "*+", "{3,1}", "{,2}", "{}", "{   }")

    def __call__(self, rng: Random) -> None:
        self.follow(gbnf_grammar(self.grammar(rng)), rng)


def piece(rng: Random, pieces: tuple[tuple[str, ...], tuple[str, ...]], odd: float) -> str:
    """Return one of the first list, or with the probability `odd` one of the second."""
    return rng.choice(pieces[rng.random() < odd])


class ShortForm(Reader):
    """The short form of a schema."""

    PIECES = (
        "name", "age int", "bio: one sentence, long", "tags list[str]", "[int]", "list", ",", ",", "\n", "\r\n", ":",
        " ", "{", "}", '{"type": "object"}', '{"$ref": "#"}', "true", "false", "str", "x foo", "list[", "]", '"',
        *TEXTS,
    )  # fmt: skip

    def __call__(self, rng: Random) -> None:
        text = "".join(rng.choices(self.PIECES, k=rng.randrange(12))) * rng.choice((1, 1, 1, 1, 50))
        schema = schema_of(text)
        assert isinstance(several(schema)["properties"], dict)

"""Grammars in Lark's notation: what is taken, and what is refused because it could give other texts."""

from random import Random

import pytest
from helpers.grammar_texts import allowed, matcher, random_text, texts_of
from helpers.recognizer import recognizes

from mistral_mlx.constraint.grammar import lark_grammar
from mistral_mlx.constraint.lark import read_lark
from mistral_mlx.errors import OptionError

SUMS = """
// sums
%import common.INT
%ignore " "
start: sum "=" INT
?sum: product (("+" | "-") product)* -> total
product: atom ("*" atom)*
!atom: INT | NAME | "(" sum ")"
NAME: /[a-z_]\\w*/
"""


@pytest.mark.parametrize(
    ("grammar", "yes", "no"),
    [
        (SUMS, ["a=1", "1 + (b_2 - 3)*c = 42"], ["a", "a==1", "a b = 1", "1 +"]),
        ('start: "a" start "b" | ""', ["", "aabb"], ["aab", "ba"]),
        ('start: start "," A | A\nA: /[0-9]+/', ["1", "1,22,3"], ["", "1,", ",1"]),
        ('start: "a"~2..3 "b"~2 ["c"] "d"{1,} "e"{2} "f"{,1}', ["aabbdee", "aaabbcddeef"], ["abbdee", "aabbee"]),
        ('start: "k"i /[a-c]x/i "a".."c"', ["kAXa", "KbxC".replace("C", "c")], ["kAXC", "kdxa"]),
        ('start: ("a"\n  | "b"\n)\n  | "c"\n\n| "d" # no "e"\n', ["a", "b", "c", "d"], ["e"]),
        (r'start: "\"\\\n\x41\u00e9\ud83d\ude00" /\/\d/', ['"\\\nAé😀/7'], []),
        ('start: WORD WORD2\r\nWORD: "a" | "b" WORD2\r\nWORD2: ("c" "d"){2}', ["acdcd", "bcdcdcdcd"], ["acd"]),
        (
            "%llguidance {}\n%import common (INT, LETTER)\n%import common.WS -> GAP\nstart: INT GAP LETTER",
            ["1 a"],
            ["1a"],
        ),
        ('start: ("a"?)* x\nx: x? "b"', ["aab", "bb"], ["a", ""]),
    ],
)
def test_grammars_allow_their_texts_and_no_others(grammar, yes, no):
    assert texts_of(lark_grammar(grammar), [*yes, *no]) == yes


def test_what_is_ignored_may_stand_between_terminals():
    grammar = lark_grammar('%ignore " "\n%ignore /#[^\\n]*\\n/\nstart: "ab" "c"')
    assert texts_of(grammar, ["abc", "ab  c", "ab #x\n c", "a bc", " abc", "abc "]) == ["abc", "ab  c", "ab #x\n c"]


def test_a_terminal_takes_as_much_as_it_can():
    assert texts_of(lark_grammar('start: /[a-z]+/ "ing"'), ["sing"]) == []
    assert texts_of(lark_grammar("start: /[a-z]+ing/"), ["sing", "inking"]) == ["sing", "inking"]


def test_a_terminal_that_takes_what_must_follow_does_not_hang():
    """The next letters are forced, without an end: a search for all of them took all memory."""
    state = matcher(lark_grammar('start: /x(ab)*/ "ab"'))
    assert state.consume_tokens(list(b"xababab"))
    assert allowed(state) == [ord("a")]
    assert state.compute_ff_tokens() == []


def test_texts_of_random_grammars_are_texts_of_their_rules():
    n_texts = 0
    for case in range(150):
        rng = Random(case)
        text = random_grammar(rng)
        try:
            grammar = lark_grammar(text)
        except OptionError:
            continue
        if (found := random_text(grammar, rng, most=8)) is not None:
            assert recognizes(read_lark(text).rules, "start", found), (text, found)
            n_texts += 1
    assert n_texts > 50


def random_grammar(rng):
    def alternatives(depth, names):
        return " | ".join(sequence(depth, names) for _ in range(rng.randint(1, 3)))

    def sequence(depth, names):
        return " ".join(part(depth, names) for _ in range(rng.randint(1, 3)))

    def part(depth, names):
        kinds = ['"a"', '"ab"', "/[ab]+c?/", "/[^a]/", '"B"i', '"a".."c"', *names, *names]
        inner = f"({alternatives(depth + 1, names)})" if depth < 2 and rng.random() < 0.2 else rng.choice(kinds)
        return inner + rng.choice(["", "", "", "*", "+", "?", "{2}", "~1..2"])

    rules = [f"{name}: {alternatives(0, ['start', 'x', 'A', 'B'])}" for name in ("start", "x")]
    return "\n".join([*rules, f"A: {alternatives(1, ['B'])}", f"B: {alternatives(1, [])}"])


@pytest.mark.parametrize(
    ("grammar", "word"),
    [
        ("start: <|im_end|>", "has <|im_end|> in line 1; an answer is a text, without control tokens"),
        ("start: <[5-7]>", "has <[5-7]> in line 1; an answer is a text"),
        ('start: "a" | <[*]>', "has <[*]> in line 1; an answer is a text"),
        ("start[lazy]: /.*x/", "the attribute lazy in line 1"),
        ("\nstart[max_tokens=3]: /.*/", "the attribute max_tokens in line 2"),
        ("start[temperature=0.5]: /.*/", "the attribute temperature"),
        ('start[stop="x"]: /.*/', "the attribute stop"),
        ('start[suffix="x"]: /.*/', "the attribute suffix"),
        ("start[capture]: /a/", "the attribute capture"),
        ('start: A\nA: ~"a"', "has ~ in line 2; & and ~ are not supported"),
        ('start: A\nA: "a" & "b"', "has & in line 2; & and ~ are not supported"),
        ("start: @other", "has @other in line 1; there is only this one grammar"),
        ('start: %json {"type": "object"}', "has %json in line 1; only %ignore and %import common"),
        ('start: %regex {"substring_words": "a b"}', "has %regex in line 1"),
        ('start: %lark { start: "a" }', "has %lark in line 1"),
        ('%llguidance {"allow_invalid_utf8": true}\nstart: "a"', "has %llguidance in line 1"),
        ('%declare A\nstart: "a"', "has %declare in line 1"),
        ('%override start: "a"', "has %override in line 1"),
        ('%import .other.A\nstart: "a"', "has . in line 1"),
        ('%import other.A\nstart: "a"', "imports other in line 1; only %import common is supported"),
        ("%import common.NOTHING\nstart: NOTHING", "Unknown common regex"),
        ('start.2: "a"', "has . in line 1; priorities are not supported"),
        ('start: x{"a"}\nx{y}: y', "has { in line 1; templates are not supported"),
        ("start: x::1\nx::_: /a/", "has :: in line 1; it is not supported"),
        ('start: "a" %if is_ones(_)', "has %if in line 1"),
        ("start: 'a'", 'write strings as "…"'),
        ('start: "a', "instead of a part of the rule"),
        (r'start: "\q"', r"has '\\q' in line 1, which is no letter"),
        (r'start: "\ud800"', r"half a letter, \ud800"),
        ('start: "\udc80"', r"half a letter, \udc80"),
        ("start: /a(?=b)/", "a lookahead, (?=…), is not supported"),
        ("start: /a$/", "$ is not supported in an expression of a grammar"),
        ("start: /a/x", "the flag x"),
        ('start: ("a"', "the end in line 1 instead of the end of the group in line 1"),
        ('start: ("a"]', "has ] in line 1 for a ("),
        ('start: "b".."a"', "a range in line 1 that is not one"),
        ('start: "a"{2,1}', "the repetition {2,1}"),
        ('start: "a"{1 2}', "write, for example, {2}"),
        ('start: "a"{999999}', "give at most 100,000"),
        ('start: Ab\nAb: "a"', "has Ab in line 2; write rules in small letters, terminals in capitals"),
        ('start: A\nA: b\nb: "a"', "the terminal A, which refers to the rule b"),
        ('start: A\nA: B "a"\nB: A', "the terminal A, which refers to itself"),
        ('start: A{300}\nA: B{1000}\nB: "a"{1000}', "the terminal A of more than 100,000 letters"),
        ('start: "a" b', "has no rule b, which line 1 refers to"),
        ('rule: "a"', "has no rule start"),
        ('start: "a"\nstart: "b"', "has start twice, again in line 2"),
        ('start: "a" start', "the rule start, of which no text ever ends"),
        ('start: ""', "allows only the empty text"),
        ("", "is empty"),
        ("start: " + "(" * 51 + '"a"' + ")" * 51, "more than 50 groups inside each other"),
        ('start: A0\nA999: "x"\n' + "\n".join(f"A{i}: A{i + 1}" for i in range(999)), "rules and groups deep"),
        ("start: " + '"a" ' * 7_000, "more than 6,000 parts"),
    ],
)
def test_what_is_not_taken_is_named(grammar, word):
    with pytest.raises(OptionError) as refused:
        lark_grammar(grammar)
    assert word in str(refused.value)
    assert str(refused.value).isprintable()


def test_no_grammar_lets_a_special_token_in():
    for grammar in ('start: "<eos>" /(?s:.)*/', "start: /[^a]+/", r'start: /[\W\w]+/ "[INST]"', 'start: "\xff" /./'):
        state = matcher(lark_grammar(grammar))
        assert max(allowed(state)) < 256
        for byte in b"<eos>":
            state.consume_token(byte)
        assert state.is_error() or max(allowed(state)) <= 256

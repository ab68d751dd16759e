"""Grammars of llama.cpp: their notation, and that each letter counts as in llama.cpp."""

from random import Random

import pytest
from helpers.grammar_texts import random_text, texts_of
from helpers.recognizer import recognizes

from mistral_mlx.constraint.gbnf import gbnf_rules
from mistral_mlx.constraint.grammar import gbnf_grammar
from mistral_mlx.errors import OptionError

SUMS = """
# sums of numbers and names
root  ::= (sum "=" space atom "\\n")+
sum   ::= atom ([-+*/] space atom)*
atom  ::= name | digits | "(" space sum ")" space
name ::= [a-z] [a-z0-9_]* space
digits   ::= [0-9]+ space
space    ::= [ \\t\\n]*
"""
VALUES = r"""
root ::= object
any-value ::= object | list | text | number | ("true" | "false" | "null") gap
object ::= "{" gap (
    text ":" gap any-value   # the first
    ("," gap text ":" gap any-value)*
  )? "}" gap
list ::= "[" gap ( any-value ("," gap any-value)* )? "]" gap
text ::= "\"" ( [^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}) )* "\"" gap
number ::= "-"? ([0-9] | [1-9] [0-9]{0,15}) ("." [0-9]+)? ([eE] [-+]? [0-9]{1,3})? gap
gap ::= | " " | "\n" [ \t]{0,20}
"""
MOVES = r"""
root ::= "1. " move " " move "\n" ([1-9] [0-9]? ". " move " " move "\n")*
move ::= (piece | pawn | castle) [+#]?
piece ::= [NBKQR] [a-h]? [1-8]? "x"? [a-h] [1-8]
pawn ::= ([a-h] "x")? [a-h] [1-8] ("=" [NBKQR])?
castle ::= "O-O" "-O"?
"""


@pytest.mark.parametrize(
    ("grammar", "yes", "no"),
    [
        (SUMS, ["a=1\n", "a +b*(c - 2)= x \n\n", "1=2\nx=(y)\n"], ["a=1", "=1\n", "a==1\n", "a b=1\n", "A=1\n"]),
        (VALUES, ["{}", '{"a":1}', '{\n "a": [-1.5e+3, "\\u00e9", null, {}]} '], ["", "[]", '{"a":01}', '{"a":1,}']),
        (MOVES, ["1. e4 e5\n", "1. e4 e5\n2. Nf3+ O-O-O\n10. exd8=Q# a1\n"], ["1. e4\n", "1. e4 e9\n", "2. e4 e5\n"]),
        ('root ::= ("- " [^\\r\\n\\u2028]+ "\\n")+', ["- é, b\n- c\n"], ["- \n", "- a", "- a\u2028\n"]),
        ("root ::= [ぁ-ゟ]+ ([ァ-ヿ一-鿿] | [\\U0001F600-\\U0001F64F])?", ["こん世", "ん😀"], ["世", "こa"]),
        ('root ::= [a-z]+ "ing"', ["sing", "inking", "ininging"], ["ing", "sin"]),
        ('root ::= "(" root ")" | [a-z]+ "ing" root?', ["(inking)", "inging(aing)"], ["ing", "(sing"]),
        ('root ::= ... "abc" ...', ["abcabcabc", "🔵🟠\nabc✅🟠🔵"], ["aaabcccc", "🔵abc🟠🔵"]),
        ('root ::= "a" root "a" | "b" root "b" | "" | [ab]', ["", "abba", "aabaa"], ["ab", "abb"]),
        ('root ::= root "a" | "b"', ["b", "baa"], ["", "ab"]),
        ('root ::= a "c"\na ::= b a | ""\nb ::= "b" | ""', ["c", "bbc"], ["bb", ""]),
        ("root ::= (a | root root)\na ::= [xy]", ["x", "xyxyxy"], ["", "z"]),
        ('root ::= ("0x" [A-F0-9]{2} " "?){2,3}', ["0xFF 0x12", "0xFF0x120xAB"], ["0xFF", "0xF 0x12"]),
        ('root ::= "a"{2} "b"{1,} "c"{ 0 , 2 } "d"?', ["aab", "aabbccd"], ["aa", "aabccc"]),
    ],
)
def test_grammars_allow_their_texts_and_no_others(grammar, yes, no):
    assert texts_of(gbnf_grammar(grammar), [*yes, *no]) == yes


@pytest.mark.parametrize(
    ("grammar", "text"),
    [
        ('root::="a"|"b"', "b"),
        ('root ::=\n  "a"\n', "a"),
        ('root ::= "a" |\n  "b"\n\n', "b"),
        ('root ::= "a" # not "b"\r\nx ::= "c"\r\n', "a"),
        ('root ::= (\n"a"\n\n"b" # one\n| "c"\n)\n', "ab"),
        ('root ::= a-b a_b 1x X x\na-b ::= "1"\na_b ::= "2"\n1x ::= "3"\nX ::= "4"\nx ::= "5"', "12345"),
        (r'root ::= "\"\\\[\]\t\x41\u00e9\U0001F600" [\^\-\]\\] [-a] [a-]', '"\\[]\tAé😀]--'),
        ('root ::= "/" "//" [/] "#" "\x7f" "\x00"', "////#\x7f\x00"),
        ('root ::= ("a"{0} "b"){1}', "b"),
    ],
)
def test_the_notation_is_read(grammar, text):
    assert texts_of(gbnf_grammar(grammar), [text]) == [text]


def test_random_grammars_allow_what_a_slow_recognizer_allows():
    n_texts = 0
    for case in range(60):
        rng = Random(case)
        text = random_grammar(rng)
        try:
            grammar = gbnf_grammar(text)
        except OptionError:
            continue
        rules = gbnf_rules(text)
        samples = ["".join(rng.choices("abc", k=rng.randint(0, 5))) for _ in range(15)]
        assert texts_of(grammar, samples) == [sample for sample in samples if recognizes(rules, "root", sample)], text
        if (found := random_text(grammar, rng, most=8)) is not None:
            assert recognizes(rules, "root", found), (text, found)
            n_texts += 1
    assert n_texts > 15


def random_grammar(rng):
    names = ["root", "x", "y"][: rng.randint(1, 3)]

    def sequence(depth):
        return " ".join(part(depth) for _ in range(rng.randint(0 if depth else 1, 3)))

    def alternatives(depth):
        return " | ".join(sequence(depth) for _ in range(rng.randint(1, 3)))

    def part(depth):
        kinds = ['"a"', '"ab"', '"bca"', "[ab]", "[^a]", *names, *names]
        inner = f"({alternatives(depth + 1)})" if depth < 2 and rng.random() < 0.3 else rng.choice(kinds)
        return inner + rng.choice(["", "", "", "*", "+", "?", "{2}", "{1,2}", "{0,1}"])

    return "\n".join(f"{name} ::= {alternatives(0)}" for name in names)


@pytest.mark.parametrize(
    ("grammar", "word"),
    [
        ('rot ::= "a"', "has no rule root"),
        ('root ::= "a" | other', "has no rule other, which line 1 refers to"),
        ('root ::= "a"\nroot ::= "b"', "the rule root twice, again in line 2"),
        ('root ::= "a" root', "the rule root, of which no text ever ends"),
        ('root ::= "a" | x\nx ::= y\ny ::= "b" x', "the rule y, of which no text ever ends"),
        ("root ::= <think>", "has <think> in line 1; an answer is a text, without control tokens"),
        ("root ::= !<[5]>", "has !<[5]> in line 1"),
        ('root ::= "a', "has '\"' in line 1 instead of a part of the rule"),
        ('root ::= ("a"', "the end in line 1 instead of ) for the ( in line 1"),
        ('root ::= "a")', "')' in line 1 instead of the end of the rule"),
        ("root ::= *", "instead of what is to be repeated"),
        ('root ::= "a"*+', "put the first into a group"),
        ('root ::= "a"{,3}', "write, for example, {2}, {2,} or {2,3}"),
        ('root ::= "a"{3,2}', "the repetition {3,2} in line 1"),
        ('root ::= "a"{999999}', "give at most 100,000"),
        (r'root ::= "\q"', r"has '\\q' in line 1, which is no letter"),
        (r'root ::= "\ud800"', r"half a letter, \ud800"),
        ('root ::= "\udc80"', r"half a letter, \udc80"),
        ("root ::= [b-a]", "the range b-a"),
        ("root ::= []", "the set [] in line 1, in which no letter is"),
        (r'root ::= "a" [^\x00-\uD7FF\uE000-\U0010FFFF]', "in which no letter is"),
        ('root "a"', "instead of ::= behind root"),
        ('root ::= ""', "allows only the empty text"),
        (" \n", "is empty"),
        ("root ::= " + "(" * 51 + '"a"' + ")" * 51, "more than 50 groups inside each other"),
        (f'root ::= "{"a" * 30_000}" root | "b"', "more than 20,000 letters in its words"),
        ("root ::= " + '"a" ' * 7_000, "more than 6,000 parts"),
        (
            "\n".join(f"a{i} ::= a{i + 1} | root" for i in range(999)) + '\na999 ::= "x"\nroot ::= a0',
            "200 rules and groups deep",
        ),
        ("root ::= " + '"a" ' * 60_000, "240,009 characters"),
    ],
)
def test_faults_of_a_grammar_are_named(grammar, word):
    with pytest.raises(OptionError) as refused:
        gbnf_grammar(grammar)
    assert word in str(refused.value)
    assert str(refused.value).isprintable()


def test_a_grammar_without_recursion_becomes_one_expression():
    assert gbnf_grammar(MOVES).count("start: T0") == 1
    assert "start: r0" in gbnf_grammar(SUMS)

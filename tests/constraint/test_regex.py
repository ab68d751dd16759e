"""Regular expressions: what they match is part of what Python's `re` matches, and what is not supported is named."""

import re
from random import Random

import pytest
from helpers.grammar_texts import is_text, matcher, random_text, texts_of

from mistral_mlx.constraint.grammar import regex_grammar
from mistral_mlx.errors import OptionError

SAMPLES = ["", "a", "b", "ab", "aab", "A", "é", "É", "7", "٣", " ", "\u2003", "\n", "-", "_", "ß", "K", "\u0301", "😀"]


@pytest.mark.parametrize(
    "pattern",
    r"a|b (a|b)* [a-c]{2,3} a*b a*?b (?i)a (?i:a)b (?i)[é] . (?s:.) [^a] [^\W] \D \S [\s\S] [] ] [^]a] \x61 é a{,2} "
    r"(?P<one>a)b (?<two>a) \- [\w-] a{0}b (|a)b \.|a \u00e9 [0-9_] (?i)ß".replace("[] ]", "[]a]").split(),
)
def test_expressions_match_what_python_matches(pattern):
    grammar = regex_grammar(pattern)
    python = pattern.replace("(?<two>", "(?P<two>")
    assert texts_of(grammar, SAMPLES) == [text for text in SAMPLES if re.fullmatch(python, text)]


@pytest.mark.parametrize(
    ("pattern", "yes", "no"),
    [(r"\d", "07", "٣a"), (r"\s", " \t\n\r\f\v", "\u2003\x1ca"), (r"\w", "aé7_字٣ⅷ", "-\u0301\u203f ")],
)
def test_classes_of_letters_are_part_of_those_of_python(pattern, yes, no):
    grammar = regex_grammar(pattern)
    assert texts_of(grammar, [*yes, *no]) == list(yes)
    assert all(re.fullmatch(pattern, text) for text in yes)


def test_ignoring_case_adds_no_letters_to_a_class():
    """U+0345 is a small iota for Unicode's folding, but no letter of a word."""
    assert texts_of(regex_grammar(r"(?i)[k\w]"), ["\u0345", "K", "ι"]) == ["K", "ι"]


@pytest.mark.parametrize("pattern", [r"\D", r"\S", r"\W", r"[^\d]", r"[^\s]", r"[^\w]", r"(?i)[^k\d]"])
def test_what_is_left_out_is_left_out_in_python_too(pattern):
    letters = [chr(c) for c in [*range(0x250), 0x2003, 0x203F, 0x212A, 0xFF11, 0x1F600]]
    found = texts_of(regex_grammar(pattern), letters)
    assert {" ", "a"} & set(found) and [text for text in found if not re.fullmatch(pattern, text)] == []


@pytest.mark.parametrize("pattern", ["^[a-z]+$", r"\A[a-z]+\Z", "(^[a-z]+$)", "^^[a-z]+|^[a-z]$", "(?m)^[a-z]+$"])
def test_anchors_at_the_ends_change_nothing(pattern):
    assert texts_of(regex_grammar(pattern), ["abc", "^abc$", "abc\n", ""]) == ["abc"]


def test_texts_of_random_expressions_match_in_python():
    ends = 0
    for case in range(120):
        rng = Random(case)
        pattern = random_pattern(rng)
        grammar = regex_grammar(pattern + "|end")  # not only the empty text
        for _ in range(3):
            if (text := random_text(grammar, rng)) is not None:
                assert re.fullmatch(pattern + "|end", text), (pattern, text)
                ends += 1
    assert ends > 250


def random_pattern(rng, depth=0):
    atoms = [
        *"abkséſß_ ",
        r"\d",
        r"\w",
        r"\S",
        r"\D",
        ".",
        "[a-c]",
        "[^a]",
        r"[^\w]",
        r"[\W\d]",
        r"[^k-s]",
        r"\n",
        "(?i:k)",
    ]

    def piece():
        inner = f"({random_pattern(rng, depth + 1)})" if depth < 3 and rng.random() < 0.25 else rng.choice(atoms)
        return inner + rng.choice(["", "", "", "*", "+", "?", "{2}", "{1,3}", "{,2}", "*?"])

    whole = "|".join("".join(piece() for _ in range(rng.randint(1, 3))) for _ in range(rng.randint(1, 2)))
    return rng.choice(["", "(?i)", "(?s)"]) + whole if depth == 0 else whole


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("(?=a)a", "a lookahead, (?=…), is not supported (character 1)"),
        ("a(?!b)", "a lookahead, (?!…), is not supported (character 2)"),
        ("(?<=a)b", "a lookbehind, (?<=…)"),
        (r"(a)\1", r"\1, a reference to a group,"),
        (r"(?P<n>a)(?P=n)", "a reference to a group, (?P=…)"),
        (r"a\b", r"\b, the edge of a word,"),
        ("a++", "a possessive repetition"),
        ("(?>a)", "an atomic group"),
        ("(a)(?(1)b)", "a condition"),
        ("(?x) a", "the flag x is not supported"),
        ("a(?i)b", "flags that are not at the start"),
        ("a^b", "a ^ that is not at the start (character 2)"),
        ("(a$)b", "a $ that is not at the end"),
        ("(^a)*", "a repeated ^ or $"),
        ("[a&&b]", "&& inside [ ]"),
        ("[[:alpha:]]", "[: inside [ ]"),
        (r"\N{BULLET}", r"\N is not supported"),
        (r"\p{Nothing}", "Unicode property not found"),
        ("(a", "a ( without its )"),
        ("a)", "a ) without its ("),
        ("[a", "a [ without its ]"),
        ("*a", "a * with nothing before it"),
        ("a**", "two repetitions of one part"),
        ("a{3,2}", "a repetition from 3 to 2"),
        ("[b-a]", "a range whose end is before its start"),
        (r"\ud800", "no letter of Unicode"),
        ("\udc80", "half a letter"),
        ("", "is empty"),
        ("()", "allows only the empty text"),
        (r"a[^\x00-\U0010ffff]", "a set that leaves out all letters (character 2)"),
        (r"[^\s\S]", "a set that leaves out all letters"),
        (r"[^\D0-9]", "allows no text at all"),
    ],
)
def test_what_is_not_supported_is_named(pattern, word):
    with pytest.raises(OptionError) as refused:
        regex_grammar(pattern)
    assert word in str(refused.value)
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    "pattern",
    [
        "(a{1000}){1000}",
        "(" * 10_000 + "a" + ")" * 10_000,
        "a{9999999}",
        "a" * 300_000,
        "(?:" * 9000,
        "[" * 9000,
        "a?" * 501,
    ],
)
def test_expressions_that_are_too_large_are_refused(pattern):
    with pytest.raises(OptionError):
        regex_grammar(pattern)


def test_an_expression_does_not_end_before_it_is_whole():
    state = matcher(regex_grammar("(ab){2}"))
    assert [state.consume_token(ord(letter)) and state.is_accepting() for letter in "abab"] == [
        False,
        False,
        False,
        True,
    ]


def test_a_slash_and_a_line_feed_stay_inside_the_expression():
    assert is_text(regex_grammar('a/b//\nstart: "x"'), 'a/b//\nstart: "x"')


@pytest.mark.parametrize("pattern", ["(?i)[^i]", "(?i)[^a-z]", "(?i)[^ı]", "(?i)[^İ]", "(?i)[^h-j]+"])
def test_without_case_no_set_allows_what_python_takes_for_an_i(pattern):
    for letter in "iIıİ":
        assert not is_text(regex_grammar(pattern), letter) or re.fullmatch(pattern, letter), letter

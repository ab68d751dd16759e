"""Markdown on a terminal: text in any pieces is shown once, row by row, and has no control codes."""

import random
import re
import time

import pytest
from helpers.markdown import continued, cut, shown
from helpers.screen import Screen

from mistral_mlx.cli.terminal.highlight import ANY_BACKGROUND
from mistral_mlx.cli.terminal.markdown import MarkdownStream

TEXT = """# A heading
Some **bold text**, *italic*, `code` and 2*3*4, 2 * 3, snake_case_name, *args and **unclosed, and so on.

- an item that is long enough to go on in the next row, with `a code span` in it
  1. a number
> a quotation that is long enough to go on in the next row, too
```python
def add(a, b):
    return a + b  # the sum
```
| a | b |
日本語のテキストはスペースなしで折り返されますので、ここで確かめましょう。日本語のテキスト
The end"""


def test_the_screen_is_the_same_however_the_text_is_cut():
    whole = shown([TEXT])
    for seed in range(40):
        assert shown(cut(TEXT, seed, 7)).rows == whole.rows


def test_no_text_is_lost_or_repeated_and_rows_keep_to_the_width():
    lines = shown(cut(TEXT, 0)).lines
    plain = re.sub(r"\s", "", "".join(line.removeprefix("│ ") for line in lines))
    expected = re.sub(r"^(# |- |> )", lambda m: "• " if m[0] == "- " else "", TEXT, flags=re.M)
    for mark in ("**bold text**", "*italic*", "`code`", "`a code span`"):
        expected = expected.replace(mark, mark.strip("*`"))
    assert plain == re.sub(r"\s", "", expected)
    assert max(map(len, lines)) <= 39
    assert shown([TEXT], columns=200).lines[1].startswith("Some bold text, italic, code and 2*3*4, 2 * 3,")


SOUP = [
    *r"* ** *** _ __ ` `` ``` ~~ [ ] ( ) ![ ]( < > &amp; & \ \* $$ \( \) \[ \] | a word Wörter 5 6 ! # : @".split(),
    *"日本 。 ， 👩‍👩‍👧 🇩🇪 1️⃣ e\u0301 \u00a0 http://x.y/z <b> <!-- --> <http://a.b> [t](http://u.v)".split(" "),
]
STARTS = ["\n", "\n\n", "\n- ", "\n  * ", "\n1. ", "\n> ", "\n# ", "\n---\n", "\n===\n", "\n    ", "\n\t"]
CODE = ["\n```python\n", "\n~~~\n"]
ROWS = ["\n| a | b |\n|---|:-:|\n", "\n| **c** | d", "\n- [x] ", "\n|-|\n", " ", " ", "\x1b[2J"]


def soup(seed):
    """Return a text of random Markdown, some with spans that are too long to be one."""
    rng = random.Random(seed)
    others = ["x " * 140, "*" * 290, "_" * 310] if seed % 2 else CODE
    atoms = rng.sample([*SOUP, *STARTS, *ROWS, *others], rng.choice([4, 10, 40]))
    return "".join(rng.choice(atoms) for _ in range(rng.choice([5, 15, 40, 80])))


@pytest.mark.parametrize("seed", range(100))
def test_any_markdown_is_shown_the_same_however_it_is_cut_and_within_the_width(seed):
    text = soup(seed)
    for columns in (12, 60):
        whole, pieces = shown([text], columns), cut(text, seed)
        for joins in (True, False):
            assert (
                shown(pieces, columns, joins=joins).lines
                == (whole if joins else shown([text], columns, joins=joins)).lines
            )
        assert shown(pieces, columns).rows == whole.rows
        if "`" not in text and "~" not in text and "    " not in text and "\t" not in text:  # the terminal wraps code
            assert max(map(len, whole.rows)) < columns


@pytest.mark.parametrize("seed", range(30))
def test_any_markdown_can_be_continued_anywhere(seed):
    text, place = soup(seed), random.Random(seed).randrange(40)
    continued(text[:place], cut(text[place:], seed))  # the screen fails at a sequence that is not ours


def test_a_word_that_is_longer_than_a_row_is_shown_before_it_has_ended():
    screen = Screen()
    stream = MarkdownStream(screen, lambda: 40)
    for piece in cut("x" * 100, 0):
        stream.write(piece)
    assert screen.lines == ["x" * 39, "x" * 39, "x" * 22]


def test_what_is_written_at_once_is_written_in_one_call():
    """Nobody sees a half-drawn row."""
    for piece in (TEXT, "**a** b", "- x"):
        screen = Screen()
        MarkdownStream(screen, lambda: 40).write(piece)
        assert screen.n_writes == 1


@pytest.mark.parametrize(
    "text", ["*a ", "*", "[", "[a](", "`` ` ", "<", "\\(", "- ", "> ", "| a ", "e\u0301", "é", "日"]
)
def test_the_work_for_a_piece_does_not_grow_with_the_text(text):
    def seconds(n):
        stream = MarkdownStream(lambda _: None, lambda: 80)
        start = time.process_time()
        for piece in cut(text * (n // len(text)), 0):
            stream.write(piece)
        stream.finish()
        return time.process_time() - start

    assert min(seconds(4800) for _ in range(2)) < 8 * min(seconds(1200) for _ in range(2)) + 0.05


def test_words_appear_as_they_come():
    screen = Screen()
    stream = MarkdownStream(screen, lambda: 40)
    for piece, text in (
        ("Hel", "Hel"),
        ("lo the", "Hello the"),
        ("re **bo", "Hello there **bo"),
        ("ld** x", "Hello there bold x"),
    ):
        stream.write(piece)
        assert screen.text == text


@pytest.mark.parametrize(
    ("text", "style"),
    [
        ("**bold** x", "\x1b[1mbold\x1b[0m"),
        ("*it* x", "\x1b[3mit"),
        ("`co` x", "\x1b[35mco"),
        ("~~no~~ x", "\x1b[9mno"),
        ("# Head", "\x1b[1;35mHead"),
    ],
)
def test_spans_are_styled(text, style):
    assert style in shown(text).written


def test_code_is_highlighted_in_the_colours_of_the_terminal_and_without_any_where_none_are_wanted(monkeypatch):
    code = "```python\nreturn 1\n```"
    assert re.search(r"\x1b\[\d+;49mreturn", shown([code]).written)
    monkeypatch.setenv("NO_COLOR", "1")
    written = shown([code, "\n`x` **y**\n# Head\n\n    indented"]).written
    assert not re.search(r"\x1b\[(?:[\d;]*;)?[349]\d[;m]", written)
    assert "`x`" in written


def test_a_string_of_several_lines_keeps_its_colour():
    written = shown(['```python\nx = """a\n', "return\n", '"""\n```']).written
    assert not re.search(r"9[0-9];49mreturn", written)


HOSTILE = "\x1b]52;c;x\x07\x1b[2J\rA\x08\x00\x7f\x9b1m\u202e\u2066[bold]x[/bold][link=http://x]"


def test_what_the_model_writes_is_never_obeyed():
    written = shown([HOSTILE], columns=200).written
    assert written == "␛]52;c;x␇␛[2J␍A␈␀␡<9b>1m<202e><2066>[bold]x[/bold][link=http://x]\n"
    rng = random.Random(0)
    for prefix in ("", "```python\n", "- ", "> ", "| ", "[x](http://", "<http:"):
        for _ in range(60):
            noise = "".join(
                chr(rng.choice([rng.randrange(256), 27, 91, rng.randrange(0x2028, 0x2070)])) for _ in range(30)
            )
            screen = shown(cut(prefix + noise + ")", 0), columns=30)  # it fails at a sequence that is not ours
            assert not re.search("[\u202a-\u202e\u2066-\u2069]", screen.written)


XTERM = {  # its palette, in the order of the sequences
    "black": (0, 0, 0),
    "red": (205, 0, 0),
    "magenta": (205, 0, 205),
    "white": (255, 255, 255),
    "bright_black": (127, 127, 127),
    "bright_blue": (92, 92, 255),
}


def luminance(color):
    linear = [c / 255 / 12.92 if c <= 10 else ((c / 255 + 0.055) / 1.055) ** 2.4 for c in XTERM[color]]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_colours_are_readable_on_black_and_on_white():
    """Most terminals do not tell their background; cyan and yellow could not be read on white."""
    for color in {style.color.name for style in ANY_BACKGROUND.values() if style.color} | {"magenta"}:
        for background in ("black", "white"):
            bright, dark = sorted((luminance(color), luminance(background)), reverse=True)
            assert (bright + 0.05) / (dark + 0.05) >= 3.5, (color, background)

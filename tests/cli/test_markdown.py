"""Markdown on a terminal: text in any pieces is shown once, and has no control codes."""

import random
import re
from itertools import pairwise

import pytest

from mistral_mlx.cli.terminal.markdown import MarkdownStream

TEXT = """# A heading
Some **bold text**, *italic*, `code` and 2*3*4, 2 * 3, snake_case_name, __init__, *args and **unclosed, and so on.

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


class Screen:
    """What a terminal shows: as much of one as rows that end, and a cursor that goes left and erases, need."""

    def __init__(self):
        self.rows, self.written, self.column = [[]], "", 0

    def __call__(self, text):
        self.written += text
        for part in re.findall(r"\x1b\[\d*D|\x1b\[K|\x1b\[[\d;]*m|\n|[^\x1b\n]", text):
            if part == "\n":
                self.rows.append([])
            elif part.endswith("D") and part[0] == "\x1b":
                n = int(part[2:-1])
                while n > 0:  # from the end, the wide ones are two
                    n -= 2 if "\u2e80" < self.rows[-1].pop() < "\uff5e" else 1
                assert n == 0
            elif part[0] != "\x1b":
                self.rows[-1].append(part)

    @property
    def text(self):
        return "\n".join("".join(row).rstrip() for row in self.rows)


def shown(pieces, columns=40):
    screen = Screen()
    stream = MarkdownStream(screen, lambda: columns)
    for piece in pieces:
        stream.write(piece)
    stream.finish()
    return screen


def cut(text, seed):
    rng, places = random.Random(seed), [0]
    while places[-1] < len(text):
        places.append(places[-1] + rng.randint(1, 7))
    return [text[a:b] for a, b in pairwise(places)]


def test_the_screen_is_the_same_however_the_text_is_cut():
    whole = shown([TEXT])
    for seed in range(40):
        assert shown(cut(TEXT, seed)).text == whole.text


def test_no_text_is_lost_or_repeated_and_rows_keep_to_the_width():
    lines = shown(cut(TEXT, 0)).text.splitlines()
    plain = re.sub(r"\s", "", "".join(line.removeprefix("│ ") for line in lines))
    expected = re.sub(r"^(# |- |> )", lambda m: "• " if m[0] == "- " else "", TEXT, flags=re.M)
    for mark in ("**bold text**", "*italic*", "`code`", "`a code span`"):
        expected = expected.replace(mark, mark.strip("*`"))
    assert plain == re.sub(r"\s", "", expected)
    assert max(map(len, lines)) <= 39
    assert shown([TEXT], columns=200).text.splitlines()[1].startswith("Some bold text, italic, code and 2*3*4, 2 * 3,")


def test_a_row_that_has_ended_is_never_touched_again():
    written = shown(cut(TEXT, 1)).written
    assert not re.search(r"\x1b\[\d*[ABFHJ]|\r", written)


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
        ("`co` x", "\x1b[36mco"),
        ("# Head", "\x1b[1;36mHead"),
    ],
)
def test_spans_are_styled(text, style):
    assert style in shown(text).written


def test_code_is_highlighted_in_the_colours_of_the_terminal_and_without_any_where_none_are_wanted(monkeypatch):
    code = "```python\nreturn 1\n```"
    assert re.search(r"\x1b\[\d+;49mreturn", shown([code]).written)
    monkeypatch.setenv("NO_COLOR", "1")
    written = shown([code, "\n`x` **y**"]).written
    assert not re.search(r"\x1b\[[\d;]*[349]\dm", written)
    assert "`x`" in written


def test_a_string_of_several_lines_keeps_its_colour():
    written = shown(['```python\nx = """a\n', "return\n", '"""\n```']).written
    assert not re.search(r"9[0-9];49mreturn", written)


HOSTILE = "\x1b]52;c;x\x07\x1b[2J\rA\x08\x00\x7f\x9b1m\u202e\u2066[bold]x[/bold][link=http://x]"


def test_what_the_model_writes_is_never_obeyed():
    written = shown([HOSTILE], columns=200).written
    assert written == "␛]52;c;x␇␛[2J␍A␈␀␡<9b>1m<202e><2066>[bold]x[/bold][link=http://x]\n"
    rng = random.Random(0)
    for prefix in ("", "```python\n", "- ", "> ", "| "):
        for _ in range(60):
            noise = "".join(
                chr(rng.choice([rng.randrange(256), 27, 91, rng.randrange(0x2028, 0x2070)])) for _ in range(30)
            )
            written = shown(cut(prefix + noise, 0), columns=30).written
            left = re.sub(r"\x1b\[\d*D\x1b\[K|\x1b\[[\d;]*m|\n", "", written)
            assert not re.search("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", left)

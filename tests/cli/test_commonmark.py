"""The chat shows what CommonMark says: its own examples, in random pieces, against what markdown-it-py reads in them.

The count of each section: python -m pytest -q -rA tests/cli/test_commonmark.py
"""

import json
import random
from pathlib import Path

import pytest
from helpers.commonmark import expected, same, seen, shown
from helpers.screen import Screen

from mistral_mlx.cli.terminal.markdown import MarkdownStream

SECTIONS = json.loads((Path(__file__).parents[1] / "published" / "commonmark.json").read_text("utf-8"))["sections"]
# Examples that are shown otherwise on purpose.
OTHERWISE = {
    356: "a mark between digits is a sign of arithmetic: 5678 is another number than 5*6*78",
    **dict.fromkeys((23, 33, 317), "the address may follow much later, and what is written cannot be changed"),
    **dict.fromkeys((642, 643), "raw HTML is shown as it is, and so is a line break in it"),
}


def rows(markdown, seed):
    """Return the rows that are seen when `markdown` comes in pieces of 1 to 6 characters."""
    screen, rng, place = Screen(), random.Random(seed), 0
    stream = MarkdownStream(screen, lambda: 120)
    while place < len(markdown):
        n = rng.randint(1, 6)
        stream.write(markdown[place : place + n])
        place += n
    stream.finish()
    return seen(screen.rows)


@pytest.mark.parametrize("section", SECTIONS)
def test_the_examples_are_shown_as_they_are_meant(section):
    examples = {int(number): text for number, text in SECTIONS[section].items()}
    wrong = {}
    for number, text in examples.items():
        wanted = expected(text)
        found = [rows(text, seed) for seed in range(3)]
        if not all(same(one, wanted) for one in found):
            wrong[number] = f"{text}\n--- seen\n{shown(found[0])}\n--- wanted\n{shown(wanted)}\n"
    unknown = {number: text for number, text in wrong.items() if number not in OTHERWISE}
    print(f"{section}: {len(examples) - len(wrong)} of {len(examples)}")
    assert not unknown, "\n".join(f"====== {number}\n{text}" for number, text in unknown.items())
    assert not [n for n in examples if n in OTHERWISE and n not in wrong], "these are shown as they are meant"

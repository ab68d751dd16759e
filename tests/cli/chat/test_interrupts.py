"""Keys and Ctrl-C at random moments of many answers: no turn is lost, no row torn, and nothing typed is gone.

MISTRAL_MLX_TEST_INTERRUPTS sets the number of turns, MISTRAL_MLX_TEST_SEED the seed.
"""

import json
import os
import random

from helpers.seen import SLOWLY, Seen

N_TURNS = int(os.environ.get("MISTRAL_MLX_TEST_INTERRUPTS", "8"))
SEED = int(os.environ.get("MISTRAL_MLX_TEST_SEED", "0"))
WITHOUT_TEXT = ("\x1b[A", "\x1b[D", "\t", "\x1b[5~", "\x04", "\x12")  # arrows, Tab, page up, Ctrl-D, Ctrl-R


class Typist:
    """Types at random, and knows what text it makes."""

    def __init__(self, seen, rng):
        self.seen, self.rng, self.text = seen, rng, ""

    def type(self):
        kind = self.rng.choice(("letters", "letters", "paste", "erase", "key", "enter"))
        letters = "".join(self.rng.choices("abcdefg hij", k=self.rng.randint(1, 8)))
        if kind == "erase":
            self.seen.type("\x7f")
            self.text = self.text[:-1]
        elif kind == "key":
            self.seen.type(self.rng.choice(WITHOUT_TEXT))
        elif kind == "enter":
            self.seen.type("\r")
            self.text += "\n"
        else:
            self.seen.type(f"\x1b[200~{letters}\x1b[201~" if kind == "paste" else letters)
            self.text += letters


def test_turns_that_are_interrupted_while_somebody_types(endless, home):
    rng = random.Random(SEED)
    args = ("chat", "-m", endless, "--temperature", "0", "--max-tokens", "1000000")
    seen = Seen(*args, setup=SLOWLY, columns=100, rows=30)
    seen.until(["chatting with", ">", "greedy"])
    for turn in range(N_TURNS):
        seen.type(f"turn {turn}\r")
        seen.until("(window) · Ctrl-C stops")  # the answer has begun
        typist = Typist(seen, rng)
        for _ in range(rng.randint(0, 8)):
            seen.read(rng.random() * 0.03)
            typist.type()
        seen.read(rng.random() * 0.1)
        seen.child.sendintr()
        expected = visible(typist.text)
        seen.until_true(lambda wanted=expected: prompt(seen) == wanted)
        content = answer(home, turn)
        assert shown_answer(seen, turn) == content.split()
        if expected:
            seen.clear()  # empties the prompt
            seen.until_true(lambda: prompt(seen) == "")
    seen.leave()
    messages = saved(home)
    assert [m["content"] for m in messages[::2]] == [f"turn {turn}" for turn in range(N_TURNS)]
    assert all(m["interrupted"] for m in messages[1::2])


def prompt(seen):
    """Return the text of the prompt below the last remark; None if no prompt is there."""
    rows = seen.rows
    begins = [i for i, row in enumerate(rows) if row.startswith(">")]
    if not begins or not any("greedy" in row and "Ctrl-C" not in row for row in rows):
        return None
    width = seen.screen.columns
    lines = [rows[begins[-1]].removeprefix(">").removeprefix(" ")]
    for row in rows[begins[-1] + 1 :]:
        if not row.startswith("…"):
            break
        lines.append(row[2:])
    assert all(len(line) < width - 2 for line in lines)
    return visible("\n".join(lines))


def visible(text):
    """Return `text` without the blanks and line ends that a screen does not show."""
    return "\n".join(line.rstrip() for line in text.split("\n")).rstrip()


def shown_answer(seen, turn):
    """Return the words between the question and the remark that it was interrupted."""
    rows = [*seen.scrolled, *seen.rows]
    begin = max(i for i, row in enumerate(rows) if row == f"> turn {turn}")
    end = next(i for i in range(begin, len(rows)) if rows[i].startswith("· interrupted"))
    return " ".join(rows[begin + 1 : end]).split()


def saved(home):
    (path,) = (home / "sessions").glob("*.json")
    return json.loads(path.read_text())["messages"]


def answer(home, turn):
    messages = saved(home)
    assert len(messages) == 2 * turn + 2
    return str(messages[-1]["content"])

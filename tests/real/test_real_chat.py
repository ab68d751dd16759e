"""A long chat with the demo model: after every command the answer is that of a cold run.

The window is forced to 96 tokens, which the conversation fills many times.
"""

import json
import re
import shutil
import signal
import subprocess
import threading
import time
from dataclasses import dataclass
from functools import cached_property

import pytest
from helpers.cli import PROGRAM

from mistral_mlx import Sampler, encode_chat, load, stream_generate

pytestmark = pytest.mark.real

WINDOW, MAX_TOKENS = 96, 12
QUESTIONS = """\
What is the capital of France?
And of Italy?
Which of the two is older?
Name a river there.
What colour is the sky?
Why is that so?
Name three fruits.
Which of them is the sweetest?
How many legs has a spider?
And a horse?
What do horses eat?
What is seven times six?
And nine times six?
Name a planet.
Is it larger than the Earth?
Who wrote Hamlet?
What is it about?
Name another play of his.
Say hello in Spanish.
What did I ask you first?""".splitlines()
LONG = "Write a long story about a dragon and a knight, with many details."


@dataclass
class Turn:
    """The messages after a turn, as they were saved, and how much of its prompt was cached."""

    messages: list
    n_cached: int


class Talk:
    """The program on a pipe. Each turn ends with the statistics, written when it is saved."""

    def __init__(self, home, stdout, *args):
        command = [
            *PROGRAM,
            "chat",
            "--save",
            "--temperature",
            "0",
            "--max-tokens",
            f"{MAX_TOKENS}",
            "--stats",
            "--threads",
            "1",
        ]
        self.home, self.stdout, self.turns = home, stdout, []
        pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE}
        with stdout.open("wb") as file:
            self.process = subprocess.Popen([*command, *map(str, args)], stdout=file, text=True, bufsize=1, **pipes)
        self.watchdog = threading.Timer(60, self.process.kill)
        self.watchdog.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.watchdog.cancel()
        self.process.kill()
        self.process.communicate()

    def send(self, line):
        self.process.stdin.write(line + "\n")

    def expect(self, pattern):
        """Return the first line on stderr that matches, from its beginning."""
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if match := re.match(rf"mistral-mlx: {pattern}", line):
                return match
        raise AssertionError(lines)

    def answered(self):
        n_cached = int(self.expect(r"prompt \d+ tokens \((\d+) cached\)")[1])
        self.turns.append(Turn(self.saved(), n_cached))

    def ask(self, line):
        self.send(line)
        self.answered()

    def do(self, line, remark):
        self.send(line)
        self.expect(remark)

    def begin(self, line):
        """Send a message and return when some of its answer has been written."""
        self.do("/set max_tokens 4000", "max_tokens 4000")
        n = self.stdout.stat().st_size
        self.send(line)
        while self.stdout.stat().st_size < n + 40:
            assert self.process.poll() is None
            time.sleep(0.002)

    def saved(self):
        newest = max((self.home / "sessions").glob("*.json"), key=lambda path: path.stat().st_mtime_ns)
        return json.loads(newest.read_text())["messages"]


@dataclass
class Cold:
    """The same model with nothing cached."""

    folder: object

    @cached_property
    def opened(self):
        return load(self.folder)

    def prompt(self, messages):
        return encode_chat(self.opened[1], messages)

    def check(self, messages):
        """Assert that the last message is what the model answers to the others, id for id."""
        *asked, last = messages
        prompt, ids = self.prompt(asked), last.get("ids", [])
        max_tokens = len(ids) if last.get("interrupted") else MAX_TOKENS
        replay = list(stream_generate(*self.opened, prompt, sampler=Sampler(temperature=0), max_tokens=max_tokens))
        assert "".join(response.text for response in replay) == last["content"]


@pytest.fixture
def cold(demo, tmp_path):
    folder = shutil.copytree(demo, tmp_path / "narrow")
    config = json.loads((demo / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "model_type": "mistral", "sliding_window": WINDOW}))
    return Cold(folder)


def first_half(talk):
    """Turns 1 to 13, with all that changes a conversation, and a 14th that is killed in its answer."""
    for question in QUESTIONS[:8]:
        talk.ask(question)
    talk.do("/undo 2", "taken back: Name three fruits. and 1 more")
    talk.ask(QUESTIONS[6])
    talk.ask("/retry")
    talk.do("/edit 3", "the next message replaces it")
    talk.ask("What colour is grass?")
    for question in QUESTIONS[5:9]:
        talk.ask(question)
    talk.begin(LONG)
    talk.process.send_signal(signal.SIGINT)
    talk.answered()
    talk.do("/set max_tokens 12", "max_tokens 12")
    for question in QUESTIONS[10:13]:
        talk.ask(question)
    talk.do("/save seasons", "saved as seasons")
    talk.begin("Tell me all about the planets of the solar system, one after another.")
    talk.process.kill()


def second_half(talk):
    """The killed turn again, then turns 15 to 20."""
    talk.expect("resumed, 14 turns")
    talk.do("/set max_tokens 12", "max_tokens 12")
    talk.ask("/retry")
    for question in QUESTIONS[14:]:
        talk.ask(question)
    talk.do("/undo", "taken back: What did I ask you first")
    talk.do("/edit 2", "the next message replaces it")
    talk.ask("Name the last play of his.")
    for question in QUESTIONS[18:]:
        talk.ask(question)
    talk.ask("/retry")
    talk.send("/exit")
    assert talk.process.wait() == 0


def test_every_answer_of_a_long_chat_equals_a_cold_replay_of_its_transcript(cold, home, tmp_path):
    with Talk(home, tmp_path / "out1", "-m", cold.folder) as first:
        first_half(first)
    question, n_kept = first.saved()[-1], len(first.saved())
    assert (question["role"], n_kept) == ("user", 27)  # the answer is lost, and nothing else
    with Talk(home, tmp_path / "out2", "--resume", "seasons") as second:
        second_half(second)
    assert [turn.messages[-1].get("interrupted") for turn in first.turns].count(True) == 1

    for talk in (first, second):
        answers = "".join(f"{turn.messages[-1]['content']}\n" for turn in talk.turns)
        assert talk.stdout.read_text().startswith(answers)
    turns = [*first.turns, *second.turns]
    for turn in turns:
        cold.check(turn.messages)

    final = second.turns[-1].messages
    assert len(final) == 2 * 20
    assert len(cold.prompt(final)) > 5 * WINDOW
    n_wrapped = [turn.n_cached for turn in turns if turn.n_cached > WINDOW]
    assert len(n_wrapped) > 15  # or else all was read anew, and nothing was shown

"""Two chats on one session, killed at random moments: what was answered stays, and the session goes on as a cold run.

A process that has imported everything, and computed nothing, forks a child for each chat. Every save writes a cache, so
that many of the kills come while one is written. MISTRAL_MLX_TEST_KILLS says how many kills there are.
"""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx import Session, load
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.session import saved

N_KILLS = int(os.environ.get("MISTRAL_MLX_TEST_KILLS", "6"))
MAX_TURNS = 24
LONGEST_S = 0.12  # about as long as the answers take
FORKS = """
import importlib, json, os, sys, time
for name in "cli.app cli.models.opening cli.chat.start session.saved session.kept prompt.template".split():
    importlib.import_module(f"mistral_mlx.{name}")
from mistral_mlx.cli.chat import cache_times
from mistral_mlx.cli.main import main

cache_times.WORTH_S = cache_times.EVERY_S = 0.0
os.fsync = lambda descriptor: None  # is for power cuts; here it would only take time
for line in sys.stdin:
    call = json.loads(line)
    if "ended" in call:
        end = time.monotonic() + 20
        while not (ended := os.waitpid(call["ended"], os.WNOHANG))[0]:
            if time.monotonic() > end:  # a process that was forked may stand still for ever
                os.kill(call["ended"], 9)
                ended = os.waitpid(call["ended"], 0)
                break
            time.sleep(0.002)
        print(os.waitstatus_to_exitcode(ended[1]), flush=True)
        continue
    if pid := os.fork():
        print(pid, flush=True)
        continue
    for number, path in enumerate(call["files"]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.stdin, sys.stdout, sys.stderr = (open(n, "w" if n else "r", closefd=False) for n in range(3))
    sys.argv = ["mistral-mlx", "chat", *call["args"]]
    status = 1
    try:
        main()
    except SystemExit as end:
        status = end.code or 0
    finally:
        os._exit(status)
"""


@dataclass
class Talk:
    """A chat that runs in a process of its own, and what it was asked."""

    pid: int
    asked: list[str]
    stdout: Path
    stderr: Path
    session: str  # its name

    @property
    def said(self):
        return self.stderr.read_text() if self.stderr.exists() else ""

    @property
    def n_answered(self):
        """How many turns were ended and saved: each is followed by a line of counts."""
        return len(re.findall(r"^mistral-mlx: prompt .*\n", self.said, re.MULTILINE))

    def wait_for_text(self):
        end = time.monotonic() + 20
        while not (self.stdout.exists() and self.stdout.stat().st_size) and time.monotonic() < end:
            time.sleep(0.001)


class Chats:
    """Starts chats, kills them, and checks what they leave."""

    def __init__(self, folder, home, place, rng):
        self.folder, self.home, self.place, self.rng, self.n = folder, home, place, rng, 0
        self.model, self.counts = load(folder), Counter()
        self.server = subprocess.Popen([sys.executable, "-c", FORKS], stdin=-1, stdout=-1, text=True, bufsize=1)

    def call(self, **call):
        self.server.stdin.write(json.dumps(call) + "\n")
        return int(self.server.stdout.readline())

    def start(self, name):
        """Start a chat that goes on with the session `name`."""
        self.n += 1
        asked = [f"{self.n} {word}" for word in self.rng.sample(["why", "and so", "go on", "hello", "the king"], 5)]
        asked += [f"{self.n} last"]
        files = [self.place / f"{self.n}.{kind}" for kind in ("in", "out", "err")]
        files[0].write_text("".join(f"{text}\n" for text in asked))
        args = ["-m", str(self.folder), "--temperature", "0", "-n", "8", "--stats", "--resume", name]
        return Talk(self.call(args=args, files=list(map(str, files))), asked, files[1], files[2], name)

    def begin(self, name):
        """Begin a session of one turn."""
        (self.place / "first").write_text(f"hello\n/save {name}\n")
        files = [str(self.place / file) for file in ("first", "out", "err")]
        pid = self.call(args=["-m", str(self.folder), "--temperature", "0", "-n", "8"], files=files)
        assert self.call(ended=pid) == 0
        return name

    def path(self, name):
        return self.home / "sessions" / f"{name}.json"

    def kill(self, talk):
        os.kill(talk.pid, signal.SIGKILL)
        return self.call(ended=talk.pid)

    def check(self, talk):
        """Check the session of a chat that was killed, and return how many turns it has."""
        kept, begun, talk.session = max((*self.kept_of(talk, name), name) for name in self.names(talk))
        assert talk.n_answered <= kept <= begun <= talk.n_answered + 1, (kept, begun, talk.said)
        session = saved.load(self.path(talk.session), *self.model).session
        self.counts["answers missing"] += session.messages[-1]["role"] == "user"
        self.counts["caches used"] += session.n_tokens > 0
        self.check_goes_on_as_cold(session)
        return len(session.messages) // 2

    def names(self, talk):
        """Return the names that the session of a chat may have by now."""
        return [path.stem for path in self.path("x").parent.glob("*.json") if path.stem.startswith(talk.session)]

    def kept_of(self, talk, name):
        """Return how many questions of a chat have their answers in a session, and how many are there in all."""
        messages = json.loads(self.path(name).read_text())["messages"]
        said = [message["content"] for message in messages]
        start = said.index(talk.asked[0]) if talk.asked[0] in said else len(said)
        begun = sum(said[start + 2 * i : start + 2 * i + 1] == [text] for i, text in enumerate(talk.asked))
        kept = sum(message["role"] == "assistant" for message in messages[start + 1 : start + 2 * begun : 2])
        return kept, begun

    def check_goes_on_as_cold(self, session):
        cold = Session(*self.model, system=session.system)
        cold.messages = list(session.messages)
        options = AnswerOptions(sampler=Sampler(temperature=0), max_tokens=8)
        warm_ids, cold_ids = ([r.token for r in s.ask("so", options)] for s in (session, cold))
        assert warm_ids == cold_ids and warm_ids


@pytest.fixture(params=[None, 24], ids=["full", "windowed"])
def chats(request, tmp_path, home):
    folder = write_tiny_folder(tmp_path / "tiny", sliding_window=request.param, max_position_embeddings=4096)
    rng = random.Random(int(os.environ.get("MISTRAL_MLX_TEST_SEED", "1")))
    found = Chats(folder, home, tmp_path, rng)
    with found.server:
        yield found
        found.server.stdin.close()


def test_a_killed_chat_loses_at_most_its_last_answer_and_goes_on_as_a_cold_run(chats):
    rng, name, n_names, counts = chats.rng, chats.begin("talk1"), 1, Counter()
    while counts["kills"] < N_KILLS / 2:
        talks = [chats.start(name) for _ in range(2)]
        rng.choice(talks).wait_for_text()
        time.sleep(rng.uniform(0, LONGEST_S))
        killed = rng.sample(talks, rng.choice([1, 1, 2]))
        counts["kills"] += sum(chats.kill(talk) == -signal.SIGKILL for talk in killed)
        assert [chats.call(ended=talk.pid) for talk in talks if talk not in killed] in ([], [0], [-9])
        turns = [chats.check(talk) for talk in talks]
        counts["new names"] += sum(talk.session != name for talk in talks)
        name = rng.choice(talks).session
        if max(turns) > MAX_TURNS:
            n_names += 1
            name = chats.begin(f"talk{n_names}")
    print(dict(counts + chats.counts))

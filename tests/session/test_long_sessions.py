"""Many turns with saves in between, and a process that is killed."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from helpers.saved_sessions import SETTINGS, reload
from helpers.session_steps import TEXTS, check, new_session, random_step

from mistral_mlx.session.saved import save


def test_twenty_turns_with_everything_that_can_happen(session, path):
    """Each answer is compared with a cold run of its transcript; the process ends and begins anew in between."""
    rng = random.Random(2)
    check(session, "ask", TEXTS[0])
    for number in range(20):
        name, args = random_step(session, rng)
        if name == "undo":
            session.undo(*args)
            name, args = "ask", ("so",)
        check(session, name, *args, pieces=rng.choice([None, None, 2]), max_tokens=rng.randint(1, 9))
        save(session, path, SETTINGS, max_cache_bytes=rng.choice([0, 1 << 20]))
        if number % 4 == 3:
            session = reload(session, path)
    assert session.context.used > 48
    check(session, "ask", "why")


KILLED = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from helpers.session_steps import GREEDY, TEXTS, new_session, perform
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.session.saved import save
import mlx.core as mx
mx.set_default_device(mx.cpu)
session, path = new_session(8), Path(sys.argv[2])
for text in TEXTS[:2]:
    perform(session, "ask", text)
    save(session, path, {})
    for response in session.ask("so", AnswerOptions(sampler=GREEDY, max_tokens=1)):
        print("answering", flush=True)
        if text == TEXTS[1]:
            while True:
                save(session, path, {})
    save(session, path, {})
"""


def test_kill_9_in_the_middle_of_an_answer_loses_only_that_answer(path):
    for wait in (0, 0.01, 0.05):
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(Path(__file__).parents[1]), str(path)], stdout=subprocess.PIPE, text=True
        )
        try:
            process.stdout.readline()
            assert process.stdout.readline() == "answering\n"
            time.sleep(wait)
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        session = reload(new_session(8), path)
        users = [message["content"] for message in session.messages if message["role"] == "user"]
        answers = [message for message in session.messages if message["role"] == "assistant"]
        assert users[:3] == [TEXTS[0], "so", TEXTS[1]] and len(answers) == 3
        check(session, "ask", "why")

"""A chat in a terminal with a model that two processes share: what is lost, and what goes on."""

import json
from contextlib import contextmanager

import pytest
from helpers.launched import started
from helpers.terminal import asked, ended, terminal

pytestmark = [pytest.mark.cpu, pytest.mark.distributed]

LOST = "one of the processes that share the model has ended"
LONG = ("--pipeline", "-n", "9000000")


@contextmanager
def chat(tmp_path, folder, *args):
    """Yield the terminal of rank 0, and the process of rank 1."""
    with started(tmp_path, 2, ["chat", "-m", folder, *args], late=0) as ranks:
        child = terminal(folder, *args, MLX_HOSTFILE=str(tmp_path / "hosts.json"), MLX_RANK="0")
        try:
            child.timeout = 10
            child.expect("processes share the model")
            yield child, ranks.processes[1]
        finally:
            child.close(force=True)


def answers(home):
    (path,) = (home / "sessions").glob("*.json")
    return [m["content"] for m in json.loads(path.read_text())["messages"] if m["role"] == "assistant"]


def test_a_process_that_is_lost_at_the_prompt_ends_the_chat_and_nothing_of_it_is_lost(tmp_path, home, endless):
    with chat(tmp_path, endless, "--pipeline", "-n", "4") as (child, follower):
        child.send("Write\r")
        child.expect("only indirectly")  # the remark on the window, below the answer
        child.expect(">")
        child.send("not sent")
        child.expect("not sent")
        follower.kill()
        child.expect(LOST)
        assert ended(child) == 10
    assert (asked(home), len(answers(home))) == (["Write"], 1)
    assert "+not sent" in next(home.glob("*history*")).read_text().splitlines()


def test_a_process_that_is_lost_in_an_answer_ends_the_chat(tmp_path, home, endless):
    with chat(tmp_path, endless, *LONG) as (child, follower):
        child.send("Write\r")
        child.expect("the the")
        child.send("queued\rhalf")
        child.expect("half")
        follower.kill()
        child.expect("error: the connection to another process was lost")
        assert ended(child) == 10
    assert answers(home)[0].startswith("the the")
    assert next(home.glob("*history*")).read_text().endswith("+queued\n+half\n")


def test_a_chat_goes_on_from_a_session_by_its_name(tmp_path, home, endless):
    with chat(tmp_path, endless, "--pipeline", "-n", "4") as (child, _):
        child.send("Write\r")
        child.expect("only indirectly")
        child.expect(">")
        child.send("/save mine\r")
        child.expect("saved")
        child.send("/exit\r")
        assert ended(child) == 0
    with chat(tmp_path, endless, "--pipeline", "--resume", "mine") as (child, _):
        child.expect("Write")
        child.send("/exit\r")
        assert ended(child) == 0

"""What the environment says of the processes that share a model, and what mlx.launch's own terminal shows."""

import os
import signal

import pytest
from helpers.cli import PROGRAM
from helpers.launched import launched

from mistral_mlx.distributed.launched import HOSTS, RANK, Launched, join_seconds
from mistral_mlx.distributed.launched import launched as said_by_environment
from mistral_mlx.errors import GroupError, OptionError


def several_processes(test):
    return pytest.mark.cpu(pytest.mark.distributed(test))


FEW = ("--raw", "--temperature", "0", "-n", "4", "--pipeline", "Once")
FOREVER = ("--raw", "--temperature", "0", "-n", "9000000", "--pipeline", "Once")


@pytest.fixture
def environment(tmp_path, monkeypatch):
    """Return a function that sets the rank and writes the hosts."""

    def set_to(rank, hosts):
        (tmp_path / "hosts.json").write_text(hosts)
        monkeypatch.setenv(RANK, rank)
        monkeypatch.setenv(HOSTS, str(tmp_path / "hosts.json"))

    return set_to


TWO = '[["127.0.0.1:5000"], ["10.0.0.2:5000"]]'


def test_the_rank_and_the_addresses_are_those_of_the_environment(environment):
    environment("1", TWO)
    assert said_by_environment() == Launched(1, 2, "ring", (("127.0.0.1:5000",), ("10.0.0.2:5000",)))


@pytest.mark.parametrize("hosts", ["", '[["127.0.0.1:5000"]]'])
def test_one_process_runs_alone(environment, hosts):
    environment("0", hosts)
    assert said_by_environment() is None


@pytest.mark.parametrize(
    ("rank", "hosts", "text"),
    [
        ("2", TWO, "the rank is '2'; the group has 2 ranks, the first is 0"),
        ("-1", TWO, "the rank is '-1'; the group has 2 ranks, the first is 0"),
        ("1", "", "the rank is '1'; the group has 0 ranks, the first is 0"),
        ("0", "{", "which cannot be read: Expecting property name"),
        ("0", '{"a": 1}', "a list in JSON with a list for each rank is expected"),
        ("0", "[[], []]", "a list in JSON with a list for each rank is expected"),
        ("0", "[[5000], [5001]]", "MLX_HOSTFILE has the address 5000; IP:PORT is expected"),
        ("0", '[["127.0.0.1:99999"], ["127.0.0.1:5000"]]', "the address 127.0.0.1:99999; IP:PORT is expected"),
    ],
)
def test_an_environment_that_is_no_sense_is_refused(environment, rank, hosts, text):
    environment(rank, hosts)
    with pytest.raises(GroupError) as refused:
        said_by_environment()
    assert text in str(refused.value)


def test_hosts_that_are_missing_are_refused(environment, monkeypatch, tmp_path):
    environment("0", TWO)
    monkeypatch.setenv(HOSTS, str(tmp_path / "none"))
    with pytest.raises(GroupError, match="cannot be read: No such file or directory"):
        said_by_environment()


@pytest.mark.parametrize("value", ["0", "-1", "soon", "nan", "1e9"])
def test_a_time_to_join_that_is_no_sense_is_refused(monkeypatch, value):
    monkeypatch.setenv("MISTRAL_MLX_JOIN_SECONDS", value)
    with pytest.raises(OptionError, match="it must be a number of seconds, at most 86400"):
        join_seconds()


@several_processes
@pytest.mark.parametrize("victim", [0, 1])
def test_one_line_says_that_a_process_is_lost_and_none_is_left(endless, victim):
    """MLX wrote ten lines of its own."""
    with launched(2, "complete", "-m", endless, *FOREVER) as group:
        group.wait_for("processes share the model")
        os.kill(group.children()[victim].pid, signal.SIGKILL)
        stdout, lines = group.ended()
    assert set(stdout.split()) <= {"the", "th", "t"}
    assert len(lines) == (1 if victim else 0), lines  # the launcher itself tells of rank 0
    assert all("one of the 2 that share the model has ended" in line for line in lines)


@several_processes
@pytest.mark.parametrize(
    ("args", "text"),
    [
        (["info", "demo"], "info does not run on several processes; leave out mlx.launch"),
        (["complete", "-m", "none", "Hi"], "no such model directory or registered name: none"),
        (
            ["batch", "-"],
            "standard input has no end under mlx.launch; give the text as an argument or in a file",
        ),
    ],
    ids=["command", "model", "input"],
)
def test_an_error_of_all_is_said_once(args, text):
    with launched(2, *args) as group:
        stdout, lines = group.ended()
    assert (stdout, len(lines)) == ("", 1), lines
    assert text in lines[0]


@several_processes
def test_an_error_of_one_that_follows_is_said_once(endless):
    script = 'model=$1; shift; [ "$MLX_RANK" = 1 ] && model=/nowhere; exec "$@" -m "$model"'
    with launched(2, "sh", "-c", script, "sh", endless, *PROGRAM, "complete", *FEW) as group:
        stdout, lines = group.ended()
    assert (stdout, lines) == ("", ["mistral-mlx: error: rank 1 cannot go on: no such model directory: /nowhere"])


@several_processes
def test_one_process_of_the_launcher_is_an_ordinary_program_without_input(endless):
    """It used to wait for the end of standard input, which never comes there."""
    with launched(1, "complete", "-m", endless, *FEW) as group:
        stdout, _ = group.ended()
    assert stdout == " the the the the\n"


@several_processes
def test_a_chat_goes_on_after_an_interrupted_answer_and_ends_all_when_it_is_left(endless):
    with launched(2, "chat", "-m", endless, "--pipeline", "--temperature", "0", "-n", "9000000") as group:
        group.wait_for("chatting with")
        group.process.stdin.write(b"Write\n")
        assert os.read(group.process.stdout.fileno(), 3)
        os.kill(group.children()[0].pid, signal.SIGINT)
        group.wait_for("interrupted")
        group.process.stdin.write(b"/exit\n")
        _, lines = group.ended()
    said = "mistral-mlx: interrupted; the part above stays in the conversation, and /continue goes on with it"
    assert lines[1] == said
    assert not any("lost" in line or "error" in line for line in lines)


@several_processes
def test_ctrl_c_in_an_answer_ends_a_chat_that_the_launcher_left_alone(endless):
    """The launcher is dead then, and passes nothing on: the chat waited for ever for its next message."""
    with launched(2, "chat", "-m", endless, "--pipeline", "-n", "9000000") as group:
        group.wait_for("chatting with")
        group.process.stdin.write(b"Write\n")
        assert os.read(group.process.stdout.fileno(), 3)
        for process in (group.process, *group.children().values()):
            os.kill(process.pid, signal.SIGINT)
        _, lines = group.ended()
    assert lines[-1] == "KeyboardInterrupt"

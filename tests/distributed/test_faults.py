"""What happens when one of the processes that share a model fails: all end, with one line and a documented status."""

import shutil
import signal
import socket
import time

import pytest
from helpers.launched import started, wait_until
from helpers.ports import free_ports
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx.errors import shown

pytestmark = [pytest.mark.cpu, pytest.mark.distributed]

FOREVER = ("--raw", "--temperature", "0", "-n", "9000000", "Once")
FEW = ("--raw", "--temperature", "0", "-n", "4", "--pipeline", "Once")
LOST = {
    f"mistral-mlx: error: the connection to another process was lost: one of the {n} that share the model has ended"
    for n in (2, 4)
} | {"mistral-mlx: one of the processes that share the model has ended"}
SLOW = """
import time
from mistral_mlx.distributed import agree
agree.load_share = lambda *args: time.sleep(60)
"""
DAMAGED = """
from mistral_mlx.distributed import agree
from mistral_mlx.errors import CheckpointError
def load_share(*args):
    raise CheckpointError("model.safetensors is damaged")
agree.load_share = load_share
"""
OTHER_VERSION = "import mistral_mlx.version; mistral_mlx.version.__version__ = '0.0.9'"
NO_MEMORY = "import mistral_mlx.kernels.memory as memory; memory.available_memory = lambda: 1"


def complete(folder, *args):
    return ["complete", "-m", folder, *args]


def all_but(ends, rank):
    return [end for i, end in enumerate(ends) if i != rank]


@pytest.mark.parametrize(("n", "way", "victim"), [(2, "", 1), (2, "--pipeline", 0), (4, "--pipeline", 2)])
def test_a_process_that_is_killed_in_an_answer_ends_all(tmp_path, endless, n, way, victim):
    with started(tmp_path, n, complete(endless, *FOREVER, *filter(None, [way]))) as ranks:
        ranks.wait_until_begun()
        ranks.signal(victim, signal.SIGKILL)
        for end in all_but(ranks.ended(), victim):
            assert (end.status, end.stderr in LOST) == (10, True), end


def test_a_process_that_is_killed_while_a_prompt_is_read_ends_all(tmp_path, endless):
    (tmp_path / "long").write_text("Once upon a time " * 200_000)
    args = complete(endless, "--raw", "--no-cache", "--prompt-file", tmp_path / "long", "--pipeline")
    with started(tmp_path, 2, args) as ranks:
        ranks.wait_until_begun()
        ranks.signal(1, signal.SIGKILL)
        end = ranks.ended()[0]
        assert (end.status, end.stdout, end.stderr in LOST) == (10, "", True), end


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_is_killed_while_the_model_is_loaded_ends_all(tmp_path, endless, victim):
    """The others used to load their shares first, which takes minutes for a large model."""
    loads = tmp_path / "loads"
    setup = SLOW.replace("time.sleep(60)", f"(open({str(loads)!r}, 'w'), time.sleep(60))")
    with started(tmp_path, 2, complete(endless, *FEW), setup={1 - victim: setup}) as ranks:
        wait_until(loads.exists)
        ranks.signal(victim, signal.SIGKILL)
        (end,) = all_but(ranks.ended(), victim)
        assert (end.status, end.stderr in LOST) == (10, True), end


@pytest.mark.parametrize(
    ("setup", "text"),
    [
        (OTHER_VERSION, "rank 1 has version 0.0.9 of mistral-mlx, rank 0 has "),
        (NO_MEMORY, "rank 1 needs 0.0 GB of memory, 0.0 GB are available; take more machines, or add --ignore-memory"),
        (DAMAGED, "rank 1 cannot load its share: model.safetensors is damaged"),
    ],
    ids=["version", "memory", "damage"],
)
def test_what_keeps_one_process_from_going_on_is_told_to_all(tmp_path, endless, setup, text):
    with started(tmp_path, 2, complete(endless, *FEW), setup={1: setup}) as ranks:
        ends = ranks.ended()
    assert ends[0].stderr == ends[1].stderr
    assert ends[0].stderr.startswith(f"mistral-mlx: error: {text}")
    assert [end.status for end in ends] == [10, 10]


def test_every_process_needs_the_same_model(tmp_path, endless):
    other = write_tiny_folder(tmp_path / "other", num_hidden_layers=4, max_position_embeddings=10_000_000, seed=1)
    with started(tmp_path, 4, {rank: complete(other if rank == 2 else endless, *FEW) for rank in range(4)}) as ranks:
        ends = ranks.ended()
    text = "the model of rank 2 is another one than that of rank 0; every machine needs the same folder"
    assert {(end.status, end.stderr) for end in ends} == {(10, f"mistral-mlx: error: {text}")}


@pytest.mark.parametrize(("rank", "statuses"), [(0, [3, 10]), (1, [10, 10])])
def test_a_damaged_folder_of_one_process_is_told_to_all(tmp_path, endless, rank, statuses):
    damaged = shutil.copytree(endless, tmp_path / "damaged")
    (damaged / "config.json").unlink()
    with started(tmp_path, 2, {rank: complete(damaged, *FEW), 1 - rank: complete(endless, *FEW)}) as ranks:
        ends = ranks.ended()
    text = f"config.json is missing from {shown(str(damaged))}"
    assert [end.status for end in ends] == statuses
    assert ends[rank].stderr == f"mistral-mlx: error: {'rank 1 cannot go on: ' if rank else ''}{text}"
    assert ends[1 - rank].stderr == f"mistral-mlx: error: rank {rank} cannot go on: {text}"


def test_an_error_of_rank_0_before_it_needs_the_model_ends_the_others_at_once(tmp_path, endless):
    """They used to wait as long as one waits for a process that does not come."""
    with started(tmp_path, 2, complete(endless, *FEW, "--var", "x=1"), MISTRAL_MLX_JOIN_SECONDS="60") as ranks:
        ends = ranks.ended()
    text = "--var is for the variables of a template; name one with --prompt-template"
    assert [end.status for end in ends] == [2, 10]
    assert ends[0].stderr == f"mistral-mlx: error: {text}"
    assert ends[1].stderr == f"mistral-mlx: error: rank 0 cannot go on: {text}"


def test_a_process_does_not_wait_for_ever_for_one_that_never_comes(tmp_path, endless):
    with started(tmp_path, 2, complete(endless, *FEW), late=0, MISTRAL_MLX_JOIN_SECONDS="0.5") as ranks:
        (end,) = ranks.ended()
    text = "rank 1 of 2 has waited 0.5 seconds for the others; start all within that time, "
    text += "and see whether one of them could not start"
    assert (end.status, end.stderr) == (10, f"mistral-mlx: error: {text}")


def test_a_process_may_start_late(tmp_path, endless):
    """The sockets of the vain attempts stay open, and were taken for lost connections a second later."""
    with started(tmp_path, 2, complete(endless, *FOREVER, "--pipeline"), late=0) as ranks:
        time.sleep(1)
        ranks.start(0)
        ranks.wait_until_begun()
        time.sleep(1.5)
        assert [process.poll() for process in ranks.processes.values()] == [None, None]


def test_a_port_that_another_program_uses_is_named(tmp_path, endless):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        (tmp_path / "taken.json").write_text(f'[["{address}"], ["127.0.0.1:{free_ports(1)[0]}"]]')
        args, hosts = complete(endless, *FEW), str(tmp_path / "taken.json")
        setup = f"import os; os.environ['MLX_HOSTFILE'] = {hosts!r}"
        with started(tmp_path, 2, args, setup={0: setup}, late=1) as ranks:
            (end,) = ranks.ended()
    text = f"{address} is in use by another program; take other ports: mlx.launch --starting-port"
    assert (end.status, end.stderr) == (10, f"mistral-mlx: error: {text}")


@pytest.mark.parametrize(
    ("rank", "number", "statuses"), [(0, signal.SIGINT, [130, 130]), (1, signal.SIGTERM, [10, 143])]
)
def test_a_signal_to_one_ends_all(tmp_path, endless, rank, number, statuses):
    with started(tmp_path, 2, complete(endless, *FOREVER, "--pipeline")) as ranks:
        ranks.wait_until_begun()
        ranks.signal(rank, number)
        ends = ranks.ended()
    assert [end.status for end in ends] == statuses
    assert all(end.stderr.count("\n") == 0 for end in ends), ends
    assert ends[1].stdout == ""


def test_the_others_end_with_the_status_of_rank_0_and_say_nothing(tmp_path, endless):
    with started(tmp_path, 2, complete(endless, *FEW, "--fail-on-length", "-q")) as ranks:
        ends = ranks.ended()
    assert [(end.status, end.stderr) for end in ends] == [(6, ends[0].stderr), (6, "")]
    assert [end.stdout for end in ends] == [" the the the the\n", ""]


def test_when_nobody_reads_the_answer_all_end(tmp_path, endless):
    with started(tmp_path, 2, complete(endless, *FOREVER, "--pipeline")) as ranks:
        first = ranks.processes[0].stdout
        assert first.read(4) == b" the"
        first.close()
        ranks.processes[0].stdout = None
        assert [process.wait(timeout=10) for process in ranks.processes.values()] == [141, 141]

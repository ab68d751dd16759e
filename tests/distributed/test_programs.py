"""The program in several processes writes what it writes in one."""

import pytest
from helpers.cli import run
from helpers.ranks import launch, run_ranks
from helpers.tiny_folder import write_tiny_folder

pytestmark = [pytest.mark.distributed, pytest.mark.cpu]

RAW = ("--raw", "--temperature", "0", "--exact")
PROMPT = "Once upon a time"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("model") / "tiny", num_key_value_heads=4)


def one(*args):
    result = run(*args, "--threads", 1)
    return result.returncode, result.stdout.decode()


def test_the_launcher_of_mlx_starts_them(folder):
    args = ("complete", "-q", "-m", folder, *RAW, "-n", 24, PROMPT)
    assert launch(2, *args) == (*one(*args), "")


def test_a_follower_writes_nothing_and_has_the_status_of_rank_0(folder):
    args = ("complete", "-m", folder, *RAW, "-n", 24, PROMPT, "--pipeline")
    first, second = run_ranks(2, *args)
    assert (first.status, first.stdout) == one(*args)
    assert first.stderr.startswith("mistral-mlx: 2 processes share the model: each has some of the layers\n")
    assert second == (0, "", "")


def test_an_impossible_share_ends_all_with_one_line(folder):
    three = run_ranks(3, "complete", "-q", "-m", folder, PROMPT)
    assert [one.status for one in three] == [2, 10, 10]
    assert three[0].stderr == (
        "mistral-mlx: error: the 4 key heads of this model cannot be split over 3 processes; take --pipeline, which "
        "splits the layers\n"
    )

"""The threads of the native kernels: their number, its limit, and a failing piece."""

import subprocess
import sys
from pathlib import Path

import pytest

from mistral_mlx.kernels import native

pytestmark = pytest.mark.skipif(not native.built, reason=f"no native kernels: {native.missing}")

# Starts five threads above the limit, then runs rounds of jobs until the scheduler reports that they slept through one.
ASLEEP = """
from pathlib import Path
from mistral_mlx.kernels.native import ext

def tasks():
    return {path.name for path in Path("/proc/self/task").iterdir()}

def times():
    return [Path("/proc/self/task", task, "schedstat").read_text() for task in idle]

ext.set_threads(2)
ext.run_pieces(4, lambda i: None)
before = tasks()
ext.set_threads(7)
ext.run_pieces(4, lambda i: None)
idle = tasks() - before
ext.set_threads(2)
for _ in range(20):
    start = times()
    for _ in range(100):
        ext.run_pieces(4, lambda i: sum(range(1000)))
    if times() == start:
        break
else:
    raise SystemExit(f"woken: {start}, {times()}")
print(len(idle))
"""


@pytest.fixture
def four_threads():
    before = native.ext.threads()
    native.ext.set_threads(4)
    yield
    native.ext.set_threads(before)


@pytest.mark.skipif(not Path("/proc/self/schedstat").exists(), reason="the system does not count the runs of a thread")
def test_threads_above_the_limit_sleep_through_all_jobs():
    """Every job woke them, and each spun for 50 microseconds beside the threads that worked."""
    run = subprocess.run([sys.executable, "-c", ASLEEP], capture_output=True, text=True, timeout=60)
    assert (run.stdout, run.stderr) == ("5\n", "")


def test_a_larger_number_wakes_the_threads_again(four_threads):
    for n in (1, 4, 2, 3, 4):
        native.ext.set_threads(n)
        seen: list[int] = []
        native.ext.run_pieces(40, seen.append)
        assert sorted(seen) == list(range(40))


@pytest.mark.parametrize("n", [1, 2, 40])
def test_a_piece_that_fails_fails_the_job_after_all_others_were_run(four_threads, n):
    """An exception in a thread ended the process; in the caller it freed what the other threads still used."""
    seen = []

    def piece(i):
        seen.append(i)
        raise ValueError(f"piece {i}")

    with pytest.raises(ValueError, match="piece"):
        native.ext.run_pieces(n, piece)
    assert sorted(seen) == list(range(n))


def test_the_threads_work_on_after_a_piece_failed(four_threads):
    for _ in range(20):
        with pytest.raises(ZeroDivisionError):
            native.ext.run_pieces(20, lambda i: 1 // (i - 7))
        seen: list[int] = []
        native.ext.run_pieces(20, seen.append)
        assert sorted(seen) == list(range(20))


UNLIMITED = 1 << 20


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/\n", {"cpu.max": "250000 100000"}, 2),
        ("0::/\n", {"cpu.max": "max 100000"}, UNLIMITED),
        ("0::/\n", {"cpu.max": "1000 100000"}, 1),
        ("0::/a/b\n", {"a/b/cpu.max": "400000 100000"}, 4),
        ("0::/a/b\n", {"a/b/cpu.max": "max 100000", "a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", {"a/b/cpu.max": "200000 100000", "a/cpu.max": "300000 100000"}, 2),
        ("0::/not/here\n", {"cpu.max": "500000 100000"}, 5),
        (
            "3:cpuset:/x\n2:cpu,cpuacct:/y\n0::/\n",
            {"cpu/y/cpu.cfs_quota_us": "150000", "cpu/y/cpu.cfs_period_us": "50000"},
            3,
        ),
        ("2:cpuacct,cpu:/y\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, UNLIMITED),
        ("", {"cpu.max": "100000 100000"}, UNLIMITED),
        ("nonsense\n::\n0::\n", {"cpu.max": "nonsense"}, UNLIMITED),
    ],
)
def test_the_smallest_quota_of_the_control_groups_counts(tmp_path, groups, files, expected):
    """Only the root was read, which has no quota outside of a container: a systemd slice was not seen."""
    (tmp_path / "groups").write_text(groups)
    for name, content in files.items():
        (tmp_path / "mount" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "mount" / name).write_text(content + "\n")
    assert native.ext.cpu_quota(str(tmp_path / "groups"), str(tmp_path / "mount")) == expected

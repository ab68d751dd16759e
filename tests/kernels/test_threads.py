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
V1 = "33 31 0:30 {root} {folder} rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct"
V2 = "41 31 0:38 {root} {folder} rw,relatime - cgroup2 cgroup2 rw"
OTHERS = """22 1 8:1 / / rw - ext4 /dev/sda1 rw
nonsense
23 22 0:9 / /sys/fs/cgroup ro,nosuid shared:4 - tmpfs tmpfs ro
35 31 0:32 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset"""


@pytest.mark.parametrize(
    ("groups", "mounts", "files", "expected"),
    [
        ("0::/\n", [(V2, "/", "v2")], {"v2/cpu.max": "250000 100000"}, 2),
        ("0::/\n", [(V2, "/", "v2")], {"v2/cpu.max": "max 100000"}, UNLIMITED),
        ("0::/\n", [(V2, "/", "v2")], {"v2/cpu.max": "1000 100000"}, 1),
        ("0::/a/b\n", [(V2, "/", "v2")], {"v2/a/b/cpu.max": "400000 100000"}, 4),
        ("0::/a/b\n", [(V2, "/", "v2")], {"v2/a/b/cpu.max": "max 100000", "v2/a/cpu.max": "300000 100000"}, 3),
        ("0::/a/b\n", [(V2, "/", "v2")], {"v2/a/b/cpu.max": "200000 100000", "v2/a/cpu.max": "300000 100000"}, 2),
        # A container whose mount shows its own group: a child of it, the group itself, and a path that is not below it.
        (
            "0::/pod/c/job\n",
            [(V2, "/pod/c", "v2")],
            {"v2/cpu.max": "500000 100000", "v2/job/cpu.max": "200000 100000"},
            2,
        ),
        ("0::/pod/c\n", [(V2, "/pod/c", "v2")], {"v2/cpu.max": "500000 100000"}, 5),
        ("0::/pod/cd\n", [(V2, "/pod/c", "v2")], {"v2/cpu.max": "500000 100000", "v2/d/cpu.max": "100000 100000"}, 5),
        ("0::/not/here\n", [(V2, "/", "v2")], {"v2/cpu.max": "500000 100000"}, 5),
        # A group outside of the namespace must not lead out of the mount.
        ("0::/../x\n", [(V2, "/", "v2")], {"v2/cpu.max": "500000 100000", "x/cpu.max": "100000 100000"}, 5),
        ("0::/\n", [(V2, "/..", "v2")], {"v2/cpu.max": "500000 100000"}, 5),
        # Version 1, under its two usual names, and mounted elsewhere.
        (
            "3:cpuset:/x\n2:cpu,cpuacct:/y\n0::/\n",
            [(V1, "/", "cpu,cpuacct"), (V2, "/", "unified")],
            {"cpu,cpuacct/y/cpu.cfs_quota_us": "150000", "cpu,cpuacct/y/cpu.cfs_period_us": "50000"},
            3,
        ),
        (
            "2:cpuacct,cpu:/docker/c/y\n",
            [(V1, "/docker/c", "a b")],
            {"a b/y/cpu.cfs_quota_us": "400000", "a b/y/cpu.cfs_period_us": "100000"},
            4,
        ),
        (
            "2:cpuacct,cpu:/y\n",
            [(V1, "/", "c")],
            {"c/cpu.cfs_quota_us": "-1", "c/cpu.cfs_period_us": "100000"},
            UNLIMITED,
        ),
        # Both versions at once.
        (
            "1:cpu:/\n0::/u\n",
            [(V1, "/", "cpu"), (V2, "/", "unified")],
            {
                "cpu/cpu.cfs_quota_us": "700000",
                "cpu/cpu.cfs_period_us": "100000",
                "unified/u/cpu.max": "600000 100000",
            },
            6,
        ),
        ("", [(V2, "/", "v2")], {"v2/cpu.max": "100000 100000"}, UNLIMITED),
        ("0::/\n", [], {"v2/cpu.max": "100000 100000"}, UNLIMITED),
        ("nonsense\n::\n0::\n", [(V2, "/", "v2")], {"v2/cpu.max": "100000 100000"}, UNLIMITED),
        ("0::/\n", [(V2, "/", "v2")], {"v2/cpu.max": "nonsense"}, UNLIMITED),
        ("0::/\n", [(V2, "/", "v2")], {"v2/cpu.max": "200000"}, UNLIMITED),
    ],
)
def test_the_smallest_quota_of_the_control_groups_counts(tmp_path, groups, mounts, files, expected):
    """Only the usual mounts were read, and only as if they showed the root: other layouts had no limit."""
    (tmp_path / "groups").write_text(groups)
    lines = [line.format(root=root, folder=str(tmp_path / name).replace(" ", "\\040")) for line, root, name in mounts]
    (tmp_path / "mounts").write_text("\n".join([OTHERS, *lines]) + "\n")
    write_all(tmp_path, files)
    assert native.ext.cpu_quota(str(tmp_path / "groups"), str(tmp_path / "mounts")) == expected


def test_the_quota_of_this_process_can_be_asked_for():
    assert 1 <= native.ext.cpu_quota() <= UNLIMITED


def write_all(folder, files):
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content + "\n")


def siblings(*lists):
    """Return the topology files of cores with these lists of hyperthreads."""
    return {
        f"system/cpu/cpu{cpu}/topology/thread_siblings_list": ",".join(map(str, cpus)) for cpus in lists for cpu in cpus
    }


def capacities(*values):
    return {f"system/cpu/cpu{cpu}/cpu_capacity": str(value) for cpu, value in enumerate(values)}


def hybrid(n_p, n_e):
    """Return the files of a hybrid x86 processor: P cores with two threads each, then E cores with one."""
    p_cores = [(2 * i, 2 * i + 1) for i in range(n_p)]
    e_cores = [(2 * n_p + i,) for i in range(n_e)]
    lists = {"cpu_core/cpus": f"0-{2 * n_p - 1}", "cpu_atom/cpus": f"{2 * n_p}-{2 * n_p + n_e - 1}"}
    return {**siblings(*p_cores, *e_cores), **lists}


@pytest.mark.parametrize(
    ("files", "cpus", "expected"),
    [
        ({}, range(6), 6),
        (siblings((0, 2), (1, 3)), range(4), 2),
        (siblings((0, 2), (1, 3)), [0, 2], 1),
        (hybrid(8, 16), range(32), 8),
        (hybrid(8, 16), range(16, 32), 16),  # pinned to E cores
        (hybrid(8, 16), range(10, 18), 4),  # to three P cores and two E cores
        (hybrid(2, 8), range(12), 4),
        (hybrid(2, 1), range(5), 3),
        ({"cpu_core/cpus": "0,2-5"}, range(12), 5),
        ({"cpu_core/cpus": "nonsense"}, range(1, 12), 11),
        (capacities(*[1024] * 8), range(8), 8),
        (capacities(*[320] * 4, *[870] * 3, 1024), range(8), 4),
        (capacities(*[400] * 6, *[1024] * 2), range(8), 4),
        (capacities(*[400] * 6, *[1024] * 6), range(12), 6),
        (capacities(*[400] * 6, *[1024] * 6), range(6), 6),
        ({}, [], 0),
    ],
)
def test_slow_cores_do_not_count_where_there_are_enough_fast_ones(tmp_path, files, cpus, expected):
    write_all(tmp_path, files)
    assert native.ext.count_cores(list(cpus), str(tmp_path)) == expected

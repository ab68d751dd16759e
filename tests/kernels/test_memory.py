"""The available memory, as the system reports it."""

import mlx.core as mx
import pytest

from mistral_mlx import kernels
from mistral_mlx.kernels import memory


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A control group limited to 6 GB that has used 5 GB, 4.25 GB of it cached files."""
    (tmp_path / "memory.max").write_text("6000000000\n")
    (tmp_path / "memory.current").write_text("5000000000\n")
    (tmp_path / "memory.stat").write_text("anon 700000000\nactive_file 4000000000\ninactive_file 250000000\n")
    monkeypatch.setattr(kernels, "on_cpu", lambda: True)
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_linux_available", lambda: 20_000_000_000)
    return tmp_path


def test_cached_files_do_not_count_against_the_limit_of_a_container(cgroup):
    """Else a model would not fit a second time: its weights are still cached from the first."""
    assert memory.available_memory() == 5_250_000_000


def test_the_group_of_the_process_and_its_parents_limit_it(cgroup, tmp_path, monkeypatch):
    """Only the root was read, which has no limit outside of a container: a systemd slice was not seen."""
    monkeypatch.setattr(memory, "OWN_CGROUP", tmp_path / "own")
    (tmp_path / "own").write_text("4:memory:/elsewhere\n0::/user.slice/run-1.scope\n")
    scope = tmp_path / "user.slice" / "run-1.scope"
    scope.mkdir(parents=True)
    assert memory.available_memory() == 5_250_000_000
    for folder, limit in ((scope.parent, 3_000_000_000), (scope, 2_000_000_000), (scope, 4_000_000_000)):
        (folder / "memory.max").write_text(f"{limit}\n")
        (folder / "memory.current").write_text("1000000000\n")
        (folder / "memory.stat").write_text("anon 1000000000\n")
        assert memory.available_memory() == min(limit - 1_000_000_000, 2_000_000_000)


def test_no_limit_is_no_limit(cgroup):
    (cgroup / "memory.max").write_text("max\n")
    assert memory.available_memory() == 20_000_000_000


def test_a_group_that_cannot_be_read_says_nothing(cgroup):
    (cgroup / "memory.stat").unlink()
    assert memory.available_memory() == 20_000_000_000


@pytest.fixture
def limits(monkeypatch):
    """The limits of wired memory that were set on a Metal device, the first of which is the present one."""
    given = [100]
    monkeypatch.setattr(kernels, "on_cpu", lambda: False)
    monkeypatch.setattr(mx.metal, "is_available", lambda: True)
    monkeypatch.setattr(mx, "device_info", lambda: {"max_recommended_working_set_size": 7000})
    monkeypatch.setattr(mx, "set_wired_limit", lambda n: given.append(n) or given[-2])
    return given


def test_memory_is_wired_within_and_no_longer(limits):
    def interrupted():
        with memory.wired_memory():
            assert limits == [100, 7000]
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert limits == [100, 7000, 100]


def test_the_wired_limit_comes_back_with_the_last_of_several_users(limits):
    first, second = memory.wired_memory(), memory.wired_memory()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert limits == [100, 7000]
    second.__exit__(None, None, None)
    assert limits == [100, 7000, 100]


def test_a_cpu_and_cuda_have_no_wired_memory(limits, monkeypatch):
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    with memory.wired_memory():
        assert limits == [100]


@pytest.mark.parametrize(
    ("is_metal", "info", "name"),
    [
        (True, {"max_recommended_working_set_size": 7000, "memory_size": 9000}, "mlx-metal"),
        (False, {"free_memory": 7000, "total_memory": 9000}, "mlx-cuda"),
    ],
)
def test_a_gpu_has_a_name_and_the_memory_that_its_driver_reports(is_metal, info, name, monkeypatch):
    """CUDA reports no working set: every command that opens a model ended in a KeyError."""
    monkeypatch.setattr(kernels, "on_cpu", lambda: False)
    monkeypatch.setattr(mx.metal, "is_available", lambda: is_metal)
    monkeypatch.setattr(mx, "device_info", lambda: info)
    assert (memory.available_memory(), kernels.names()) == (7000, name)

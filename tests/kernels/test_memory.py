"""How much memory is there, as the system says it."""

import pytest

from mistral_mlx.kernels import memory


@pytest.fixture
def cgroup(tmp_path, monkeypatch):
    """A control group limited to 6 GB that has used 5 GB, 4.25 GB of it cached files."""
    (tmp_path / "memory.max").write_text("6000000000\n")
    (tmp_path / "memory.current").write_text("5000000000\n")
    (tmp_path / "memory.stat").write_text("anon 700000000\nactive_file 4000000000\ninactive_file 250000000\n")
    monkeypatch.setattr(memory, "CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_linux_available", lambda: 20_000_000_000)
    return tmp_path


def test_cached_files_do_not_count_against_the_limit_of_a_container(cgroup):
    """Else a model would not fit a second time: its weights are still cached from the first."""
    assert memory.available_memory() == 5_250_000_000


def test_no_limit_is_no_limit(cgroup):
    (cgroup / "memory.max").write_text("max\n")
    assert memory.available_memory() == 20_000_000_000


def test_a_group_that_cannot_be_read_says_nothing(cgroup):
    (cgroup / "memory.stat").unlink()
    assert memory.available_memory() == 20_000_000_000

"""After any fault the target is either unchanged or the complete new folder."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from helpers.convert_sources import CONFIG, random_weights, write_folder
from helpers.folder_contents import WHOLE, content, names

from mistral_mlx.convert import convert
from mistral_mlx.errors import CheckpointError, ConversionError

CHILD = """
import resource, sys, time
from mistral_mlx.convert import convert
from mistral_mlx.errors import MistralMLXError

def progress(name, done, total):
    print(name, flush=True)
    if "stop" in sys.argv and done > total // 2:
        time.sleep(60)

try:
    if "limit" in sys.argv:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
    convert(sys.argv[1], sys.argv[2], overwrite="overwrite" in sys.argv, progress=progress)
except MistralMLXError as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def child(*arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def stopped_halfway(*arguments: object) -> "subprocess.Popen[str]":
    """A child that has written half of the weights and waits."""
    process = child(*arguments, "stop")
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("model.layers.1"):
            return process
    raise AssertionError(process.stderr.read() if process.stderr else "")


def test_a_write_the_system_refuses_leaves_nothing_and_says_so(tmp_path: Path, source: Path) -> None:
    process = child(source, tmp_path / "target", "limit")
    _, error = process.communicate(timeout=60)
    assert error == (
        f"ConversionError: the conversion stopped (File too large); {tmp_path / 'target'} is as it was before\n"
    )
    assert process.returncode == 1 and names(tmp_path) == ["source"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a disk of 64 KB cannot be mounted here (not root, or not allowed)")
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_leaves_nothing_and_says_so(
    source: Path, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistral_mlx.convert.run.check_space", lambda *_: None)
    with pytest.raises(ConversionError, match=r"the disk is full; .* is as it was before"):  # a long path is shortened
        convert(source, small_disk / "target")
    assert names(small_disk) == []


def test_a_disk_that_is_full_only_at_the_end_leaves_nothing(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fsync(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(ConversionError, match="the disk is full"):
        convert(source, tmp_path / "target")
    assert names(tmp_path) == ["source"]


def test_too_little_space_is_said_first_with_both_numbers(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = type("usage", (), {"free": 4_000_000})
    monkeypatch.setattr("mistral_mlx.convert.run.disk_usage", lambda _: usage)
    needed = convert(source, tmp_path / "target", dry_run=True).needed_bytes
    with pytest.raises(ConversionError, match=rf"{needed / 1e9:.2f} GB are needed and 0\.00 GB are free"):
        convert(source, tmp_path / "target")
    assert names(tmp_path) == ["source"]


def test_a_killed_process_leaves_a_hidden_folder_that_the_next_run_removes(tmp_path: Path, source: Path) -> None:
    process = stopped_halfway(source, tmp_path / "target")
    process.kill()
    process.communicate()
    left, *others = names(tmp_path)
    assert left.startswith(".target.partial-") and others == ["source"]
    convert(source, tmp_path / "target")
    assert names(tmp_path) == ["source", "target"] and names(tmp_path / "target") == WHOLE


@pytest.mark.parametrize("exists", [False, True])
def test_ctrl_c_leaves_everything_as_it_was(tmp_path: Path, source: Path, exists: bool) -> None:
    if exists:
        convert(source, tmp_path / "target", bits=8)
    before = names(tmp_path), content(tmp_path / "target") if exists else None
    process = stopped_halfway(source, tmp_path / "target", "overwrite")
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error.endswith("KeyboardInterrupt\n") and process.returncode != 0
    assert (names(tmp_path), content(tmp_path / "target") if exists else None) == before


def test_the_work_of_a_process_whose_number_is_unknown_here_stays(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Life was judged by process numbers: of two containers on one disk, each removed what the other was writing."""

    def unknown(pid: int, signal: int) -> None:
        raise ProcessLookupError

    with stopped_halfway(source, tmp_path / "target") as process:
        before = names(tmp_path)
        with monkeypatch.context() as patched:
            patched.setattr(os, "kill", unknown)
            convert(source, tmp_path / "target")
        assert names(tmp_path) == sorted([*before, "target"])
        process.kill()
    convert(source, tmp_path / "target", bits=8, overwrite=True)
    assert names(tmp_path) == ["source", "target"]


def test_folders_of_other_names_stay(tmp_path: Path, source: Path) -> None:
    kept = [".target2.partial-12ab", ".target.partial-x", ".target.old", ".target.partial-"]
    for name in [*kept, ".target.partial-12ab"]:
        (tmp_path / name).mkdir()
    convert(source, tmp_path / "target")
    assert names(tmp_path) == sorted([*kept, "source", "target"])


def test_where_nothing_can_be_locked_a_conversion_works_and_removes_no_folder_of_others(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def flock(*_: object) -> None:
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    monkeypatch.setattr("fcntl.flock", flock)
    (tmp_path / ".target.partial-12ab").mkdir()
    convert(source, tmp_path / "target")
    assert names(tmp_path) == [".target.partial-12ab", "source", "target"]


def test_a_target_set_aside_by_a_killed_process_comes_back(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "target", bits=8)
    before = content(tmp_path / "target")
    (tmp_path / ".target.partial-12ab").mkdir()
    (tmp_path / "target").rename(tmp_path / ".target.partial-12ab" / "old")
    with pytest.raises(ConversionError, match="exists"):
        convert(source, tmp_path / "target", progress=lambda *_: pytest.fail("this was known before"))
    assert (names(tmp_path), content(tmp_path / "target")) == (["source", "target"], before)


def test_a_rename_that_fails_puts_the_old_target_back(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "target", bits=8)
    before = content(tmp_path / "target")
    rename = Path.rename

    def failing(path: Path, other: Path) -> Path:
        if path.name == "new":
            raise PermissionError(errno.EPERM, "Operation not permitted")
        return rename(path, other)

    monkeypatch.setattr(Path, "rename", failing)
    with pytest.raises(ConversionError, match="Operation not permitted"):
        convert(source, tmp_path / "target", overwrite=True)
    assert (names(tmp_path), content(tmp_path / "target")) == (["source", "target"], before)


def test_a_target_that_appears_meanwhile_is_not_lost(tmp_path: Path, source: Path) -> None:
    def progress(name: str, done: int, total: int) -> None:
        if done == total:
            (tmp_path / "target").mkdir()

    with pytest.raises(ConversionError, match="exists"):
        convert(source, tmp_path / "target", progress=progress)
    assert names(tmp_path) == ["source", "target"] and names(tmp_path / "target") == []


def test_nan_found_halfway_leaves_nothing(tmp_path: Path) -> None:
    weights = {name: mx.array(w) for name, w in random_weights(CONFIG).items()}
    weights["lm_head.weight"][63, 127] = mx.nan
    source = write_folder(tmp_path / "source", weights=weights)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight holds NaN"):
        convert(source, tmp_path / "target")
    assert names(tmp_path) == ["source"]


def test_a_source_cut_while_it_is_read_is_noticed(tmp_path: Path, source: Path) -> None:
    def progress(name: str, done: int, total: int) -> None:
        os.truncate(source / "model.safetensors", 5000)

    with pytest.raises(CheckpointError, match=r"ended while .* was read"):
        convert(source, tmp_path / "target", progress=progress)
    assert names(tmp_path) == ["source"]

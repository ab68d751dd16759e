"""After any fault the target is either unchanged or the complete new folder."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import pytest
from helpers.convert_sources import CONFIG, random_weights, write_folder

from mistral_mlx.convert import convert
from mistral_mlx.errors import CheckpointError, ConversionError, ModelError

WHOLE = ["config.json", "model.safetensors", "model.safetensors.index.json"]
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


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "source")


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


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
    _, error = process.communicate(timeout=30)
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
    _, error = process.communicate(timeout=30)
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


def test_an_existing_target_stays_without_overwrite_and_is_replaced_with_it(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "target", bits=8)
    before = content(tmp_path / "target")
    with pytest.raises(ConversionError, match="exists; name another one, or replace it with --overwrite"):
        convert(source, tmp_path / "target")
    assert content(tmp_path / "target") == before
    convert(source, tmp_path / "target", bits=4, overwrite=True)
    convert(source, tmp_path / "fresh", bits=4)
    assert content(tmp_path / "target") == content(tmp_path / "fresh")
    assert names(tmp_path) == ["fresh", "source", "target"]


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


@pytest.mark.parametrize("what", ["file", "link"])
def test_overwrite_replaces_no_file_and_no_link(tmp_path: Path, source: Path, what: str) -> None:
    target = tmp_path / "target"
    if what == "file":
        target.write_text("mine")
    else:
        target.symlink_to(source)
    with pytest.raises(ConversionError, match=r"is not a model folder, so it is never replaced|lie inside one another"):
        convert(source, target, overwrite=True)
    assert names(tmp_path) == ["source", "target"]


MODEL = {"config.json": '{"model_type": "mistral"}', "model.safetensors": ""}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"mine": ""}, "holds mine, which no model folder has"),
        ({**MODEL, "thesis.txt": ""}, "holds thesis.txt, which no model folder has"),
        ({**MODEL, "app.js": ""}, "holds app.js, which no model folder has"),
        ({**MODEL, "photos/a.json": ""}, "holds photos, which no model folder has"),
        ({**MODEL, "photos.json/a": ""}, "holds photos.json, which no model folder has"),
        ({**MODEL, "config.json": '{"port": 80}'}, "no config.json with a model_type"),
        ({**MODEL, "config.json": "["}, "no config.json with a model_type"),
        ({"model.safetensors": ""}, "no config.json with a model_type"),
        ({"config.json": MODEL["config.json"]}, r"holds no \*\.safetensors"),
    ],
)
def test_overwrite_replaces_nothing_but_a_model_folder(
    tmp_path: Path, source: Path, files: dict[str, str], reason: str
) -> None:
    """Any folder without subfolders that held a config.json was replaced, whatever else was in it."""
    for name, text in files.items():
        (tmp_path / "target" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "target" / name).write_text(text)
    with pytest.raises(ConversionError, match=rf"{reason}.*, so it is never replaced; remove it yourself"):
        convert(source, tmp_path / "target", overwrite=True)
    assert sorted(str(p.relative_to(tmp_path / "target")) for p in (tmp_path / "target").rglob("*") if p.is_file()) == (
        sorted(files)
    )


def test_overwrite_replaces_a_folder_as_the_hub_gives_it(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "target", bits=8)
    for name in (
        ".gitattributes",
        "README.md",
        "LICENSE.txt",
        "merges.txt",
        "tokenizer.model.v3",
        "chat_template.jinja",
    ):
        (tmp_path / "target" / name).write_text("")
    convert(source, tmp_path / "target", overwrite=True)
    assert names(tmp_path / "target") == WHOLE


@pytest.mark.parametrize("target", [".", "inside", "../source", ".."])
def test_a_target_in_or_around_the_source_is_refused(source: Path, target: str) -> None:
    before = content(source)
    with pytest.raises(ConversionError, match="lie inside one another"):
        convert(source, source / target, overwrite=True)
    assert content(source) == before


def test_a_missing_parent_is_named(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConversionError, match=r"no/such does not exist; make it first"):
        convert(source, tmp_path / "no" / "such" / "target")


def test_a_parent_that_cannot_be_written_to_is_named(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ConversionError, match="cannot be written to"):
        convert(source, tmp_path / "target")


def test_nan_found_halfway_leaves_nothing(tmp_path: Path) -> None:
    weights = {name: mx.array(w) for name, w in random_weights(CONFIG).items()}
    weights["lm_head.weight"][63, 127] = mx.nan
    source = write_folder(tmp_path / "source", weights=weights)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight holds NaN"):
        convert(source, tmp_path / "target")
    assert names(tmp_path) == ["source"]


def test_a_source_cut_by_one_byte_is_refused_with_both_sizes(tmp_path: Path, source: Path) -> None:
    whole = (source / "model.safetensors").stat().st_size
    os.truncate(source / "model.safetensors", whole - 1)
    with pytest.raises(CheckpointError, match=f"{whole} bytes, the file has {whole - 1}"):
        convert(source, tmp_path / "target")


def test_a_source_cut_while_it_is_read_is_noticed(tmp_path: Path, source: Path) -> None:
    def progress(name: str, done: int, total: int) -> None:
        os.truncate(source / "model.safetensors", 5000)

    with pytest.raises(CheckpointError, match=r"ended while .* was read"):
        convert(source, tmp_path / "target", progress=progress)
    assert names(tmp_path) == ["source"]


def test_a_missing_shard_is_named_and_a_stray_one_ignored(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", shards=3)
    convert(source, tmp_path / "clean")
    (source / "model-00004-of-00003.safetensors").write_bytes(b"stray")
    convert(source, tmp_path / "target")
    assert content(tmp_path / "target") == content(tmp_path / "clean")
    (source / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors is missing"):
        convert(source, tmp_path / "other")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/outside.safetensors", "sub/x.safetensors"])
def test_an_index_pointing_out_of_the_folder_is_refused(tmp_path: Path, source: Path, name: str) -> None:
    (tmp_path / "outside.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ModelError, match="not a plain file name"):
        convert(source, tmp_path / "target")


def test_a_tokenizer_linked_from_elsewhere_is_refused(tmp_path: Path, source: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (source / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="link out of"):
        convert(source, tmp_path / "target")


def test_a_source_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"neither a model directory nor a GGUF file"):
        convert(tmp_path / "notes.txt", tmp_path / "target")
    with pytest.raises(ModelError, match="no such model directory"):
        convert(tmp_path / "nowhere", tmp_path / "target")

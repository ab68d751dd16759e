"""After any fault of an export the target is unchanged."""

import errno
import os
import signal
import subprocess
import sys
from pathlib import Path

import mlx.core as mx
import pytest
from helpers.convert_sources import CONFIG, random_weights, write_folder
from helpers.gguf_contents import tensors

from mistral_mlx.convert.export import gguf_writer as writer_module
from mistral_mlx.convert.export.gguf_export import export_gguf
from mistral_mlx.errors import CheckpointError, ConversionError, OptionError


def test_nan_leaves_nothing(tmp_path: Path) -> None:
    weights = {name: mx.array(w) for name, w in random_weights(CONFIG).items()}
    weights["model.norm.weight"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds NaN"):
        export_gguf(write_folder(tmp_path / "bad", weights=weights), tmp_path / "x.gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad"]


def test_an_existing_file_stays_without_overwrite_and_only_a_gguf_is_replaced(tmp_path: Path, folder: Path) -> None:
    target = tmp_path / "x.gguf"
    target.write_bytes(b"mine")
    for overwrite, message in ((False, "exists"), (True, "is not a GGUF file, so it is never replaced")):
        with pytest.raises(ConversionError, match=message):
            export_gguf(folder, target, overwrite=overwrite)
    assert target.read_bytes() == b"mine"
    target.write_bytes(b"GGUF of old")
    export_gguf(folder, target, overwrite=True)
    assert len(tensors(target)) == 21
    with pytest.raises(OptionError, match="outtype is q3"):
        export_gguf(folder, target, outtype="q3", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["FIFO", "link", "dangling link", "directory"])
def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path, folder: Path, kind: str, overwrite: bool) -> None:
    (tmp_path / "old.gguf").write_bytes(b"GGUF of old")
    target = tmp_path / "x.gguf"
    leads_to = {"link": "old.gguf", "dangling link": "gone.gguf"}
    if kind == "FIFO":
        os.mkfifo(target)
    elif kind == "directory":
        target.mkdir()
    else:
        target.symlink_to(leads_to[kind])
    before, there = target.lstat(), sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError, match="is never replaced" if overwrite else "exists"):
        export_gguf(folder, target, overwrite=overwrite)
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert sorted(tmp_path.iterdir()) == there and (tmp_path / "old.gguf").read_bytes() == b"GGUF of old"


def test_a_full_disk_leaves_the_old_file_and_says_so(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF of old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer_module, "write_all", full)
    with pytest.raises(ConversionError, match="the disk is full"):
        export_gguf(folder, tmp_path / "x.gguf", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "x.gguf"]
    assert (tmp_path / "x.gguf").read_bytes() == b"GGUF of old"


CHILD = """
import sys, time
from mistral_mlx.convert.export.gguf_export import export_gguf

def progress(name, done, total):
    if done > total // 2:
        print("half", flush=True)
        time.sleep(60)

export_gguf(sys.argv[1], sys.argv[2], progress=progress)
"""


@pytest.mark.parametrize(("number", "left"), [(signal.SIGINT, 0), (signal.SIGKILL, 1)])
def test_a_signal_leaves_no_file_and_the_next_run_clears_up(
    tmp_path: Path, folder: Path, number: signal.Signals, left: int
) -> None:
    command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "x.gguf")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "half\n"
        child.send_signal(number)
        child.wait(60)
    hidden = [p.name for p in tmp_path.iterdir() if p.name.startswith(".x.gguf.partial")]
    assert len(hidden) == left and not (tmp_path / "x.gguf").exists()
    export_gguf(folder, tmp_path / "x.gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "x.gguf"]

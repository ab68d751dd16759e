"""Hostile and damaged headers of GGUF files: each is refused at once."""

import struct
import time
from pathlib import Path

import pytest
from helpers.plain_gguf import plain

from mistral_mlx.convert import convert
from mistral_mlx.errors import CheckpointError, ConfigError


def header(pairs: int = 0, tensors: int = 0, rest: bytes = b"", *, magic: bytes = b"GGUF", version: int = 3) -> bytes:
    return magic + struct.pack("<IQQ", version, tensors, pairs) + rest


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


HUGE = 1 << 60
TENSOR = text("t") + struct.pack("<IQIQ", 1, 32, 0, 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "ends inside its header"),
        (header(magic=b"FUGG"), "not a GGUF file"),
        (header(version=1), "GGUF version 1"),
        (header(version=3 << 24), "GGUF version 50331648"),
        (header(pairs=HUGE), "items"),
        (header(pairs=1, rest=struct.pack("<Q", HUGE)), "ends inside its header"),
        (header(pairs=1, rest=text("a") + struct.pack("<IIQ", 9, 0, HUGE)), "items"),
        (header(pairs=1, rest=text("a") + struct.pack("<IIQ", 9, 0, 1 << 20)), "ends inside its header"),
        (header(pairs=1, rest=text("a") + struct.pack("<IIQ", 9, 9, 1) + bytes(64)), "unknown type 9"),
        (header(pairs=1, rest=text("a") + struct.pack("<I", 99)), "unknown type 99"),
        (header(pairs=2, rest=(text("a") + struct.pack("<IB", 0, 1)) * 2), "the key a twice"),
        (header(pairs=1, rest=struct.pack("<Q", 2) + b"\xff\xfe"), "not UTF-8"),
        (header(pairs=1, rest=text("general.alignment") + struct.pack("<II", 4, 3)), "impossible general.alignment"),
        (header(tensors=1, rest=TENSOR), "cut short"),
        (header(tensors=2, rest=TENSOR * 2 + bytes(999)), "names a tensor twice"),
        (header(tensors=2, rest=TENSOR + TENSOR.replace(b"t", b"u") + bytes(999)), "overlap"),
        (header(tensors=1, rest=text("t") + struct.pack("<IQIQ", 1, HUGE, 0, 0)), "cut short"),
        (header(tensors=1, rest=text("t") + struct.pack("<IQIQ", 1, 33, 2, 0)), "impossible shape"),
        (header(tensors=1, rest=text("t") + struct.pack("<IQIQ", 1, 32, 777, 0)), "unknown type 777"),
        (header(tensors=1, rest=text("t") + struct.pack("<I", 9)), "9 dimensions"),
        (header(), "general.architecture None"),
    ],
)
def test_a_hostile_header_is_refused_at_once(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "bad.gguf").write_bytes(content)
    started = time.process_time()
    with pytest.raises((CheckpointError, ConfigError), match=message):
        convert(tmp_path / "bad.gguf", tmp_path / "target")
    assert time.process_time() - started < 2


def test_a_file_cut_by_one_byte_is_refused_with_both_sizes(tmp_path: Path) -> None:
    path = plain(tmp_path / "cut.gguf", "Q8_0")
    whole = path.stat().st_size
    with path.open("r+b") as file:
        file.truncate(whole - 1)
    with pytest.raises(CheckpointError, match=f"describes {whole:,} bytes, the file has {whole - 1:,}"):
        convert(path, tmp_path / "target")

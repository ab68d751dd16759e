"""Hostile cases: GGUF files in parts and of rare types."""

import os
import shutil
import struct
from pathlib import Path

from helpers.gguf_files import with_head
from hostile.case import NOTHING, Case, Change, cut, gguf_header, instead, outside, pair, put, remove, text

from mistral_mlx.convert.sources.gguf.header import read_gguf_header

CONVERT = "convert carry"
PART = "m-0000{}-of-00003.gguf"


def number(file: str, key: str, value: int) -> Change:
    """Write another whole number of two bytes into a GGUF file."""

    def apply(folder: Path) -> None:
        found = (folder / file).read_bytes()
        at = found.index(text(key)) + len(text(key)) + 4
        (folder / file).write_bytes(found[:at] + struct.pack("<H", value) + found[at + 2 :])

    return apply


def exchanged(file: str, old: bytes, new: bytes) -> Change:
    """Replace bytes in a file by as many others."""

    def apply(folder: Path) -> None:
        found = (folder / file).read_bytes()
        assert old in found and len(old) == len(new), (file, old)
        (folder / file).write_bytes(found.replace(old, new))

    return apply


def alone(name: str, *pairs: bytes) -> Change:
    """Leave nothing but one file of these pairs and no tensor."""

    def apply(folder: Path) -> None:
        for path in folder.iterdir():
            path.unlink()
        (folder / name).write_bytes(gguf_header(len(pairs), 0, b"".join(pairs)))

    return apply


def many_items(folder: Path) -> None:
    """60 parts, each of them with as many items as a file may have."""
    items = text("a") + struct.pack("<IIQ", 9, 1, 2_000_000) + bytes(2_000_000)
    for i in range(60):
        pairs = [pair("split.count", "IH", 2, 60), pair("split.no", "IH", 2, i), items]
        alone_here = gguf_header(len(pairs), 0, b"".join(pairs))
        (folder / f"x-{i + 1:05d}-of-00060.gguf").write_bytes(alone_here)
    for path in folder.glob("m-*"):
        path.unlink()


PARTS_CASES = [
    *(Case(f"part {i} is missing", "parts", remove(PART.format(i)), CONVERT, "missing") for i in (1, 2, 3)),
    *(Case(f"part 2 is {what}", "parts", instead(PART.format(2), make), CONVERT, "missing")
      for what, make in (("a FIFO", os.mkfifo), ("a directory", os.mkdir), ("a loop", lambda p: p.symlink_to(p.name)))),
    Case("part 2 is a link out", "parts", outside(PART.format(2)), CONVERT, "link out of"),
    Case("part 1 is a link out", "parts", outside(PART.format(1)), CONVERT, "link out of"),
    Case("part 2 is a link to part 1", "parts", instead(PART.format(2), lambda p: p.symlink_to(PART.format(1))),
        CONVERT, "says that it is part 0"),
    Case("part 2 is part 3", "parts", lambda f: shutil.copy(f / PART.format(3), f / PART.format(2)), CONVERT, "part 2"),
    Case("part 2 is another model's", "parts", exchanged(PART.format(2), b"blk.1.", b"blk.9."), CONVERT, "blk|layers"),
    Case("a tensor in two parts", "parts", exchanged(PART.format(2), b"blk.1.attn_q", b"blk.0.attn_q"), CONVERT,
        "in two parts|twice"),
    Case("part 2 is cut", "parts", cut(PART.format(2), 9), CONVERT, "cut short"),
    Case("part 2 is a pickle", "parts", put(PART.format(2), b"\x80\x04" * 99), CONVERT, "not a GGUF file"),
    *(Case(f"part {i} {key} {value}", "parts", number(PART.format(i), f"split.{key}", value), CONVERT, "part|missing")
      for i, key, value in ((1, "count", 0), (1, "count", 1), (1, "count", 2), (1, "count", 65535), (1, "no", 1),
          (2, "count", 2), (2, "no", 7), (3, "no", 65535), (1, "tensors.count", 22), (1, "tensors.count", 0))),
    *(Case(f"{what} parts", "parts", alone(name, pair("split.count", form, *value)), CONVERT, said)
      for what, name, form, value, said in (
          ("a billion", "m-00001-of-00003.gguf", "II", (4, 10**9), "1000000000"),
          ("2^63", "m-00001-of-00003.gguf", "IQ", (10, 1 << 63), "parts"),
          ("minus one", "m-00001-of-00003.gguf", "Ii", (5, -1), "parts"),
          ("3.0", "m-00001-of-00003.gguf", "If", (6, 3.0), "missing"),
          ("NaN", "m-00001-of-00003.gguf", "If", (6, float("nan")), "parts"),
          ("99999", "m-00001-of-99999.gguf", "II", (4, 99999), "and 99997 more"),
          ("no", "m-00001-of-00000.gguf", "II", (4, 0), "architecture"),
          ("too many digits of", "m-00001-of-100000.gguf", "II", (4, 100000), "not named like"))),
    Case("parts counted by a text", "parts", alone(PART.format(1),
        text("split.count") + struct.pack("<I", 8) + text("3")),
        CONVERT, "parts"),
    Case("parts counted by a list", "parts", alone(PART.format(1),
        text("split.count") + struct.pack("<IIQB", 9, 0, 1, 3)),
        CONVERT, "parts"),
    Case("parts with escapes", "parts", alone("\x1b[2J\x9b-00001-of-00002.gguf", pair("split.count", "II", 4, 2)),
        CONVERT,
        "missing"),
    Case("parts with dots", "parts", alone("..-00001-of-00002.gguf", pair("split.count", "II", 4, 2)),
        CONVERT, "missing"),
    Case("parts of many items", "parts", many_items, CONVERT, "plausible"),
]  # fmt: skip


def of_kind(kind: str, byte: int) -> Change:
    """A head of this kind, each byte of it the same."""

    def apply(folder: Path) -> None:
        (folder / "model.gguf").unlink()
        path, _ = with_head(folder / "model.gguf", kind)
        found = path.read_bytes()

        head = next(t for t in read_gguf_header(path).tensors if t.name == "output.weight")
        end = head.start + head.nbytes
        path.write_bytes(found[: head.start] + bytes([byte]) * head.nbytes + found[end:])

    return apply


KINDS_CASES = [
    *(Case(f"{kind} of all ones", "k-quants", of_kind(kind, 0xFF), CONVERT, "NaN|not finite")
      for kind in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "IQ1_S", "IQ2_XXS", "IQ3_S", "IQ4_NL", "IQ4_XS", "TQ1_0",
          "MXFP4")),
    *(Case(f"{kind} of signalling NaN", "k-quants", of_kind(kind, 0x7D), CONVERT, "NaN|not finite")
      for kind in ("Q8_0", "Q5_1", "Q4_K", "Q6_K")),
    *(Case(f"{kind} of the largest", "k-quants", of_kind(kind, 0x7B), CONVERT, "more than F16")
      for kind in ("Q6_K", "IQ2_S")),
    *(Case(f"{kind} of zeros", "k-quants", of_kind(kind, 0), NOTHING) for kind in ("Q4_K", "IQ1_M", "MXFP4", "TQ2_0")),
    Case("k-quants cut", "k-quants", cut("model.gguf", 200), CONVERT, "cut short"),
]  # fmt: skip

"""Reading ahead and writing in the background: order, bounds, errors and threads."""

import errno
import threading
from collections.abc import Iterator
from contextlib import closing
from io import FileIO
from pathlib import Path

import pytest
from helpers.convert_sources import write_folder

from mistral_mlx.convert import convert
from mistral_mlx.convert.files import pipeline, safetensors_writer
from mistral_mlx.convert.files.pipeline import AHEAD, BEHIND, Behind, ahead
from mistral_mlx.errors import ConversionError
from mistral_mlx.kernels import native


def counting(made: list[int], stop: int) -> Iterator[int]:
    for i in range(stop):
        made.append(i)
        yield i


def test_ahead_keeps_the_order_and_the_bound() -> None:
    made: list[int] = []
    for i, item in enumerate(ahead(counting(made, 50))):
        assert item == i and len(made) <= i + 1 + AHEAD
    assert made == list(range(50))


def test_ahead_works_while_the_caller_does() -> None:
    second = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        second.set()
        yield 1

    with closing(ahead(items())) as found:
        assert next(found) == 0 and second.wait(60)


def test_ahead_raises_what_the_items_raise_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise OSError("gone")

    found = ahead(items())
    assert next(found) == 0
    with pytest.raises(OSError, match="gone"):
        next(found)


def test_behind_keeps_the_order_and_the_bound() -> None:
    done: list[int] = []
    gate = threading.Event()
    behind = Behind()
    behind.submit(gate.wait, 10)
    for i in range(BEHIND - 1):
        behind.submit(done.append, i)  # does not wait
    assert done == []
    threading.Timer(0.05, gate.set).start()
    behind.submit(done.append, BEHIND - 1)  # one too many: waits for the gate
    assert gate.is_set()
    behind.wait()
    assert done == list(range(BEHIND))
    behind.close()


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, "full")


def test_behind_raises_at_the_end_what_a_call_raised() -> None:
    behind = Behind()
    behind.submit(refuse)
    with pytest.raises(OSError, match="full"):
        behind.wait()
    behind.close()


def test_behind_does_not_go_on_for_long_after_an_error() -> None:
    behind = Behind()
    behind.submit(refuse)
    for _ in range(BEHIND - 1):
        behind.submit(int)
    with pytest.raises(OSError, match="full"):
        behind.submit(int)
    behind.close()


def test_a_write_that_fails_ends_the_conversion_and_its_threads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_folder(tmp_path / "source")
    before = set(threading.enumerate())

    write_all = safetensors_writer.write_all

    def only_headers(file: FileIO, data: memoryview, position: int) -> None:
        (refuse if position else write_all)(file, data, position)

    monkeypatch.setattr(safetensors_writer, "write_all", only_headers)
    with pytest.raises(ConversionError, match="the disk is full"):
        convert(source, tmp_path / "target")
    assert set(threading.enumerate()) <= before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


@pytest.mark.skipif(not native.built, reason="there is nothing to compare with")
@pytest.mark.parametrize("bits", [4, 8])
def test_without_the_extension_the_files_are_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int
) -> None:
    source = write_folder(tmp_path / "source")
    first = convert(source, tmp_path / "first", bits=bits, dtype="bfloat16")
    monkeypatch.setattr(native, "built", False)
    second = convert(source, tmp_path / "second", bits=bits, dtype="bfloat16")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    assert dict(second.errors) == pytest.approx(dict(first.errors), rel=1e-5)


def test_one_block_at_a_time_gives_the_same_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_folder(tmp_path / "source")
    convert(source, tmp_path / "first")
    monkeypatch.setattr(pipeline, "AHEAD", 1)
    monkeypatch.setattr(pipeline, "BEHIND", 0)
    monkeypatch.setattr("mistral_mlx.convert.sources.source.BLOCK_WEIGHTS", 128)
    convert(source, tmp_path / "second")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()

"""A GGUF file written from its metadata and tensors, block by block; knows nothing of models.

All names, types and shapes are known before the first byte, so the file starts with its final header. The layout is
that of `gguf_header`.
"""

import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from mistral_mlx.convert.files.pipeline import Behind
from mistral_mlx.convert.files.safetensors_writer import write_all
from mistral_mlx.convert.sources.gguf.header import DEFAULT_ALIGNMENT, Value

VERSION = 3


@dataclass(frozen=True)
class GGUFOutput:
    """One tensor to be written."""

    name: str
    kind: str  # ggml's spelling: F16, Q4_1, ...
    shape: tuple[int, ...]  # rows first, the other way round than in the file

    @property
    def type(self) -> GGMLQuantizationType:
        """The number of the kind."""
        return GGMLQuantizationType[self.kind]

    @property
    def nbytes(self) -> int:
        """The bytes its data takes."""
        per_block, block_nbytes = GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // per_block * block_nbytes


class GGUFWriter:
    """Writes a GGUF file; every tensor may be handed over in blocks of rows."""

    def __init__(self, metadata: Mapping[str, Value], tensors: Sequence[GGUFOutput]) -> None:
        """Lay out the file. A whole number is written as uint32, one in a list as int32, others as float32."""
        self._header = _header(metadata, tensors)
        self._position: dict[str, int] = {}  # where the next block of each tensor goes
        self._end: dict[str, int] = {}
        self.nbytes = len(self._header)
        for tensor in tensors:
            self._position[tensor.name], self._end[tensor.name] = self.nbytes, self.nbytes + tensor.nbytes
            self.nbytes += _padded(tensor.nbytes)

    @contextmanager
    def writing(self, path: Path) -> Iterator[None]:
        """Make the file. It is whole and on the disk when the block is left, and only closed if that raises."""
        self._writes = Behind()
        with path.open("xb", buffering=0) as self._file:
            try:
                write_all(self._file, memoryview(self._header), 0)
                yield
                assert self._position == self._end
                self._writes.wait()
                self._file.truncate(self.nbytes)  # the padding behind the last tensor
                os.fsync(self._file.fileno())
            finally:
                self._writes.close()

    def append(self, name: str, block: npt.NDArray[np.generic]) -> None:
        """Write the next rows of the tensor `name`, soon; the block must not change until then.

        Raises OSError if this or an earlier block could not be written.
        """
        data = np.ascontiguousarray(block).reshape(-1).view(np.uint8).data
        assert self._position[name] + len(data) <= self._end[name], (name, block.shape)
        self._writes.submit(write_all, self._file, data, self._position[name])
        self._position[name] += len(data)


def _header(metadata: Mapping[str, Value], tensors: Sequence[GGUFOutput]) -> bytes:
    parts = [b"GGUF", struct.pack("<IQQ", VERSION, len(tensors), len(metadata))]
    for key, value in metadata.items():
        parts += [_text(key), _value(value)]
    offset = 0
    for tensor in tensors:
        shape = reversed(tensor.shape)
        parts += [_text(tensor.name), struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *shape)]
        parts += [struct.pack("<IQ", tensor.type, offset)]
        offset += _padded(tensor.nbytes)
    header = b"".join(parts)
    return header.ljust(_padded(len(header)), b"\0")


def _value(value: Value) -> bytes:
    if isinstance(value, list):
        kind = _item_kind(value)
        return struct.pack("<IIQ", GGUFValueType.ARRAY, kind, len(value)) + b"".join(_plain(v, kind) for v in value)
    return struct.pack("<I", _kind(value)) + _plain(value, _kind(value))


def _item_kind(values: list[bool] | list[int] | list[float] | list[str]) -> GGUFValueType:
    if not values:
        return GGUFValueType.STRING  # the list of merges is the only one that may be empty
    return GGUFValueType.INT32 if isinstance(values[0], int) else _kind(values[0])


def _kind(value: bool | int | float | str) -> GGUFValueType:
    by_type = {
        bool: GGUFValueType.BOOL, int: GGUFValueType.UINT32, float: GGUFValueType.FLOAT32, str: GGUFValueType.STRING,
    }  # fmt: skip
    return by_type[type(value)]


def _plain(value: bool | int | float | str, kind: GGUFValueType) -> bytes:
    if isinstance(value, str):
        return _text(value)
    forms = {
        GGUFValueType.BOOL: "<?", GGUFValueType.UINT32: "<I", GGUFValueType.INT32: "<i", GGUFValueType.FLOAT32: "<f",
    }  # fmt: skip
    return struct.pack(forms[kind], value)


def _text(text: str) -> bytes:
    raw = text.encode()
    return struct.pack("<Q", len(raw)) + raw


def _padded(nbytes: int) -> int:
    return -(-nbytes // DEFAULT_ALIGNMENT) * DEFAULT_ALIGNMENT

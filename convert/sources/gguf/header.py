"""The header of a GGUF file as untrusted data: metadata and where each tensor lies; knows nothing of models.

Layout (github.com/ggml-org/ggml, docs/gguf.md), little-endian: magic, version, number of tensors and of metadata
pairs; the pairs; name, shape, type and offset of each tensor; padding; the tensors' data.

The types and block sizes are the gguf library's. Its GGUFReader is not used: it keeps two array objects for every
string of a vocabulary (2.6 s and 160 MB for 49,000 tokens, where this takes 0.2 s), and because it does not look at
the file's end, an array that claims 2**60 bytes keeps it busy for ever.
"""

import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path

import numpy as np
from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType

from mistral_mlx.errors import CheckpointError, shown

Value = bool | int | float | str | list[bool] | list[int] | list[float] | list[str]

MAX_HEADER_BYTES = 64 * 1024 * 1024  # the largest vocabularies with merges take about 20 MB
MAX_ITEMS = 1 << 21  # tensors, pairs and what is in arrays, together; those vocabularies have 1.3 million
MAX_DIMENSIONS = 4
DEFAULT_ALIGNMENT = 32

_SCALARS = {
    GGUFValueType.UINT8: "<u1", GGUFValueType.INT8: "<i1", GGUFValueType.UINT16: "<u2", GGUFValueType.INT16: "<i2",
    GGUFValueType.UINT32: "<u4", GGUFValueType.INT32: "<i4", GGUFValueType.UINT64: "<u8", GGUFValueType.INT64: "<i8",
    GGUFValueType.FLOAT32: "<f4", GGUFValueType.FLOAT64: "<f8", GGUFValueType.BOOL: "?",
}  # fmt: skip


_TENSOR_TYPES = {int(kind) for kind in GGMLQuantizationType}


@dataclass(frozen=True)
class GGUFTensor:
    """One tensor as the header describes it."""

    name: str
    kind: str  # ggml's spelling: F16, Q4_0, ...
    shape: tuple[int, ...]  # rows first, the other way round than in the file
    start: int  # bytes from the beginning of the file
    nbytes: int


@dataclass(frozen=True)
class GGUFHeader:
    """What a GGUF file says before its data."""

    metadata: Mapping[str, Value]
    tensors: tuple[GGUFTensor, ...]
    items: int  # tensors, pairs and what is in arrays


def read_gguf_header(path: Path, *, items: int = 0) -> GGUFHeader:
    """Return the header of the GGUF file at `path`, checked against the file's true size.

    `items` are those of other parts, read before.

    Raises CheckpointError if the file is no GGUF of version 2 or 3, is cut short, or contradicts itself.
    """
    with path.open("rb") as file:
        cursor = _Cursor(file, path, items)
        magic, version = cursor.take(4), cursor.number("<I")
        if magic != b"GGUF" or version not in (2, 3):
            what = f"GGUF version {version}" if magic == b"GGUF" else "not a GGUF file"
            raise CheckpointError(f"{shown(path.name)} is {what}; little-endian GGUF of version 2 or 3 is supported")
        n_tensors, n_pairs = cursor.count(), cursor.count()
        metadata: dict[str, Value] = {}
        for _ in range(n_pairs):
            key = cursor.text()
            if key in metadata:
                raise cursor.bad(f"names the key {shown(key)} twice")
            metadata[key] = cursor.value(cursor.number("<I"))
        alignment = metadata.get("general.alignment", DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise cursor.bad(f"has the impossible general.alignment {shown(alignment)}")
        described = [cursor.tensor() for _ in range(n_tensors)]
        data_start = -(-cursor.offset // alignment) * alignment
    return GGUFHeader(metadata, _placed(described, data_start, cursor), cursor.items)


def _placed(described: list[GGUFTensor], data_start: int, cursor: "_Cursor") -> tuple[GGUFTensor, ...]:
    """Return the tensors with `start` counted from the beginning of the file."""
    if len({tensor.name for tensor in described}) != len(described):
        raise cursor.bad("names a tensor twice")
    end = 0
    for tensor in sorted(described, key=lambda t: t.start):
        if data_start + tensor.start < end:
            raise cursor.bad(f"has the tensor {shown(tensor.name)} overlap another one")
        end = data_start + tensor.start + tensor.nbytes
    if end > cursor.size:
        sizes = f"its header describes {end:,} bytes, the file has {cursor.size:,}"
        raise cursor.bad(f"is cut short: {sizes}; fetch it again")
    return tuple(GGUFTensor(t.name, t.kind, t.shape, data_start + t.start, t.nbytes) for t in described)


class _Cursor:
    """Reads one value after another and never past the end of the file."""

    def __init__(self, file: BufferedReader, path: Path, items: int) -> None:
        self.file, self.path, self.offset = file, path, 0
        self.size = path.stat().st_size
        self.items = items  # those that were claimed so far

    def bad(self, what: str) -> CheckpointError:
        return CheckpointError(f"{shown(self.path.name)} {what}")

    def take(self, nbytes: int) -> bytes:
        end = self.offset + nbytes
        if end > self.size:
            sizes = f"{end:,} bytes are needed, the file has {self.size:,}"
            raise self.bad(f"ends inside its header: {sizes}; fetch it again")
        if end > MAX_HEADER_BYTES:
            raise self.bad(f"has a header of more than {MAX_HEADER_BYTES:,} bytes")
        self.offset = end
        return self.file.read(nbytes)

    def number(self, form: str) -> int:
        return int(struct.unpack(form, self.take(struct.calcsize(form)))[0])

    def count(self) -> int:
        value = self.number("<Q")
        self.items += value
        if self.items > MAX_ITEMS:
            raise self.bad(f"claims {self.items:,} items; more than {MAX_ITEMS:,} is not plausible")
        return value

    def text(self) -> str:
        raw = self.take(self.number("<Q"))
        try:
            return raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.bad(f"has a text that is not UTF-8 ({shown(repr(raw))})") from error

    def value(self, kind: int) -> Value:
        if kind == GGUFValueType.STRING:
            return self.text()
        if kind == GGUFValueType.ARRAY:
            return self._array(self.number("<I"))
        found: Value = self._scalars(kind, 1)[0]
        return found

    def _array(self, kind: int) -> Value:
        count = self.count()
        return [self.text() for _ in range(count)] if kind == GGUFValueType.STRING else self._scalars(kind, count)

    def _scalars(self, kind: int, count: int) -> "list[bool] | list[int] | list[float]":
        if kind not in _SCALARS:
            raise self.bad(f"has a value of the unknown type {kind}")
        dtype = np.dtype(_SCALARS[GGUFValueType(kind)])
        found: list[int] = np.frombuffer(self.take(dtype.itemsize * count), dtype).tolist()
        return found

    def tensor(self) -> GGUFTensor:
        name, n_dims = self.text(), self.number("<I")
        if not 1 <= n_dims <= MAX_DIMENSIONS:
            raise self.bad(f"gives the tensor {shown(name)} {n_dims} dimensions")
        shape = tuple(reversed([self.number("<Q") for _ in range(n_dims)]))
        kind, start = self.number("<I"), self.number("<Q")
        if kind not in _TENSOR_TYPES:
            raise self.bad(f"stores the tensor {shown(name)} in the unknown type {kind}")
        per_block, block_nbytes = GGML_QUANT_SIZES[GGMLQuantizationType(kind)]
        if shape[-1] % per_block or 0 in shape:
            raise self.bad(f"gives the tensor {shown(name)} the impossible shape {shown(shape)}")
        nbytes = math.prod(shape) // per_block * block_nbytes
        return GGUFTensor(name, GGMLQuantizationType(kind).name, shape, start, nbytes)

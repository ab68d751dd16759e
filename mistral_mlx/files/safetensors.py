"""Finds the safetensors files of a checkpoint and checks their headers (untrusted data).

No function here reads or writes a weight. Layout of a file (huggingface.co/docs/safetensors): 8 bytes little-endian
header length N, N bytes of JSON {name: {dtype, shape, data_offsets}}, then the data; offsets count from the end of the
header.
"""

import json
import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mistral_mlx.errors import CheckpointError, shown

from .folder import ModelFolder
from .json import parse_json

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
MAX_HEADER_BYTES = 8_000_000  # of all files together; the format allows 100 MB, ten thousand tensors need 1.5 MB
MAX_DIMENSIONS = 8

ITEM_BITS = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "U16": 16, "I16": 16, "F16": 16, "BF16": 16,
    "U32": 32, "I32": 32, "F32": 32, "U64": 64, "I64": 64, "F64": 64,
}  # fmt: skip


@dataclass(frozen=True)
class TensorEntry:
    """One tensor as a header describes it: its place in the file, dtype and shape."""

    name: str
    dtype: str  # the format's spelling: F16, BF16, F32, U32, ...
    shape: tuple[int, ...]
    file: Path
    start: int  # bytes from the beginning of the file
    nbytes: int

    def first_bytes(self, n: int) -> bytes:
        """Return the first `n` bytes of the tensor, or all of it if it has fewer. Raises OSError."""
        with self.file.open("rb") as file:
            file.seek(self.start)
            return file.read(min(n, self.nbytes))


def find_tensors(folder: ModelFolder, single: str = SINGLE_NAME) -> dict[str, TensorEntry]:
    """Return every tensor of the checkpoint in `folder` by name, from the file in the index.

    The files are exactly those of ``model.safetensors.index.json``, or the single file ``model.safetensors`` (or the
    one that `single` names). Other files in the folder are ignored.

    Raises CheckpointError if a file is missing or damaged, or a tensor is not where the index says.
    """
    index_name = f"{single}.index.json"
    if not folder.has(index_name):
        return read_header(_single_file(folder, single))
    places = _read_index(folder, index_name)
    names = sorted(set(places.values()))
    missing = [name for name in names if name == Path(name).name and not folder.has(name)]
    if missing:
        raise CheckpointError(
            f"{shown(missing[0])} is missing from {shown(str(folder.path))}; the index lists {len(names):,} files, "
            f"{len(names) - len(missing)} are present"
        )
    paths = {name: folder.file(name) for name in names}
    if (total := sum(_header_nbytes(path) for path in paths.values())) > MAX_HEADER_BYTES:
        raise CheckpointError(
            f"the headers of {len(names)} files have {total:,} bytes; more than {MAX_HEADER_BYTES:,} is not plausible"
        )
    headers = {name: read_header(path) for name, path in paths.items()}
    for tensor, name in places.items():
        if tensor not in headers[name]:
            raise CheckpointError(f"the index places {shown(tensor)} in {shown(name)}, which does not hold it")
    return {tensor: headers[name][tensor] for tensor, name in places.items()}


def header_bytes(
    tensors: Mapping[str, tuple[str, tuple[int, ...]]], metadata: Mapping[str, str] | None = None
) -> bytes:
    """Return the header of a file; `tensors` is {name: (dtype, shape)}, in the order of the data.

    Its length is a multiple of 8, so that the data is aligned.
    """
    header: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * ITEM_BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def consolidated_files(folder: ModelFolder) -> list[str]:
    """Return the weight files in Mistral's own layout; a folder may hold both layouts."""
    return sorted(p.name for p in folder.path.iterdir() if re.fullmatch(r"consolidated.*\.(safetensors|pth)", p.name))


def native_message(folder: ModelFolder, found: str) -> str:
    """Return the advice for a folder in Mistral's own layout; `found` is one of its files."""
    path = shown(str(folder.path))
    return f"{path} is in Mistral's own layout ({shown(found)}); convert it first: mistral-mlx convert {path}"


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Return the tensors of the safetensors file at `path`, checked against its size.

    Raises CheckpointError if the header is not well formed, entries overlap, leave gaps or disagree with their
    dtype and shape, or the file is shorter or longer than the header says.
    """
    length, size = _header_nbytes(path), path.stat().st_size
    header = _header(path, length)
    header.pop("__metadata__", None)
    entries = [_entry(path, name, value, 8 + length) for name, value in header.items()]
    _check_layout(path, entries, 8 + length, size)
    return {entry.name: entry for entry in entries}


def read_metadata(path: Path, *, max_nbytes: int = MAX_HEADER_BYTES) -> dict[str, str]:
    """Return the metadata of the safetensors file at `path`, whose header has at most `max_nbytes`.

    Raises CheckpointError if the header is not well formed. Its tensors are not looked at.
    """
    length = _header_nbytes(path)
    if length > max_nbytes:
        raise CheckpointError(f"the header of {shown(path.name)} has {length:,} bytes; the limit is {max_nbytes:,}")
    metadata = _header(path, length).get("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise CheckpointError(f"the metadata of {shown(path.name)} are not texts")
    return metadata


def _header(path: Path, length: int) -> dict[str, object]:
    """Return the JSON object in the header, which has `length` bytes."""
    with path.open("rb") as file:
        raw = file.read(8 + length)[8:]
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CheckpointError(f"the header of {shown(path.name)} is not UTF-8") from error
    return parse_json(text, name=f"the header of {path.name}", error=CheckpointError)


def _header_nbytes(path: Path) -> int:
    """Return the bytes of the header; raise CheckpointError if the file is too short for it."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            prefix = file.read(8)
    except OSError as error:
        raise CheckpointError(f"{shown(path.name)} cannot be read ({error.strerror or error})") from error
    length = int(struct.unpack("<Q", prefix)[0]) if len(prefix) == 8 else 0
    if not 2 <= length <= min(MAX_HEADER_BYTES, size - 8):
        raise CheckpointError(
            f"{shown(path.name)} is not a whole safetensors file: a header of {length:,} bytes in a file of {size:,}"
        )
    return length


def _single_file(folder: ModelFolder, single: str) -> Path:
    if folder.has(single):
        return folder.file(single)
    natives = [name for name in consolidated_files(folder) if name.endswith(".safetensors")]
    if natives and single == SINGLE_NAME:
        raise CheckpointError(native_message(folder, natives[0]))
    pickles = [p.name for p in folder.path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl", ".ckpt")]
    if pickles:
        raise CheckpointError(
            f"{shown(str(folder.path))} holds its weights as a pickle ({shown(min(pickles))}), which can run code and "
            "is never opened; get the model's safetensors files, or save it again with safe_serialization=True"
        )
    raise CheckpointError(f"no weights in {shown(str(folder.path))}: neither {single} nor {single}.index.json exists")


def weight_map(folder: ModelFolder, name: str = INDEX_NAME) -> dict[str, object]:
    """Return the places of the tensors as the index `name` gives them, without a check; empty if it gives none.

    For a look at files that are not all here. Raises ConfigError if the index is no JSON object.
    """
    places = folder.json(name).get("weight_map")
    return places if isinstance(places, dict) else {}


def _read_index(folder: ModelFolder, name: str) -> dict[str, str]:
    index = parse_json(folder.text(name), name=name, error=CheckpointError)
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise CheckpointError(f"{name} has no weight_map")
    for tensor, file in places.items():
        if not isinstance(file, str) or not file.endswith(".safetensors"):
            raise CheckpointError(f"the index places {shown(tensor)} in {shown(file)}, which is not a safetensors file")
    return places


def _entry(path: Path, name: str, value: object, data_start: int) -> TensorEntry:
    def bad(what: str) -> CheckpointError:
        return CheckpointError(f"{shown(path.name)}: tensor {shown(name)} {what}")

    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise bad("is not described by dtype, shape and data_offsets")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in ITEM_BITS:
        raise bad(f"has the unknown dtype {shown(dtype)}")
    if not _naturals(shape) or len(shape) > MAX_DIMENSIONS:
        raise bad(f"has the impossible shape {shown(json.dumps(shape))}")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        raise bad(f"has the impossible data_offsets {shown(json.dumps(offsets))}")
    nbytes = math.prod(shape) * ITEM_BITS[dtype] // 8
    if offsets[1] - offsets[0] != nbytes:
        span = offsets[1] - offsets[0]
        raise bad(f"takes {nbytes:,} bytes as {dtype} {list(shape)}, but its data_offsets span {span:,}")
    return TensorEntry(name, dtype, tuple(shape), path, data_start + offsets[0], nbytes)


def _naturals(value: object) -> bool:
    return isinstance(value, list) and all(type(n) is int and 0 <= n < 1 << 63 for n in value)


def _check_layout(path: Path, entries: list[TensorEntry], data_start: int, size: int) -> None:
    end = data_start
    for entry in sorted(entries, key=lambda e: (e.start, e.nbytes)):
        if entry.start != end:
            kind = "overlaps another one" if entry.start < end else "leaves a gap before it"
            raise CheckpointError(f"{shown(path.name)}: tensor {shown(entry.name)} {kind} in the file")
        end = entry.start + entry.nbytes
    if size != end:
        state = "cut short or damaged" if size < end else "damaged"
        raise CheckpointError(
            f"{shown(path.name)} is {state}: its header describes {end:,} bytes, the file has {size:,}; fetch it again"
        )

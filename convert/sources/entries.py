"""What a safetensors header lists, as tensors of a source; reads no weights."""

import math

from mistral_mlx.convert.storage.heads import PairedHeads
from mistral_mlx.convert.storage.plain import Plain
from mistral_mlx.convert.storage.rows import FLOAT_KINDS, Storage, Stored
from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.files.safetensors import TensorEntry

from .source import SourceTensor


def plain_tensor(entry: TensorEntry, name: str, head_dim: int | None = None) -> SourceTensor:
    """Return `entry` as the tensor `name`; `head_dim` if the rows of every head lie in pairs.

    Raises CheckpointError if it is no tensor of weights, or does not divide into heads.
    """
    if entry.dtype not in FLOAT_KINDS:
        raise CheckpointError(
            f"tensor {shown(entry.name)} is stored as {entry.dtype}; only {', '.join(FLOAT_KINDS)} can be converted"
        )
    check_heads(entry.name, entry.shape, head_dim)
    return SourceTensor(name, entry.shape, ordered(Plain(stored(entry, name), entry.dtype), head_dim))


def stored(entry: TensorEntry, tensor: str) -> Stored:
    """Return where `entry`, which belongs to `tensor`, lies row by row; a vector is one row, experts follow each other.

    Raises CheckpointError if there is nothing in it.
    """
    if not entry.nbytes or not entry.shape:
        raise CheckpointError(f"tensor {shown(entry.name)} has the impossible shape {list(entry.shape)}")
    rows = math.prod(entry.shape[:-1])
    return Stored(tensor, entry.file, entry.start, rows, entry.nbytes // rows, entry.dtype)


def ordered(storage: Storage, head_dim: int | None) -> Storage:
    """Return `storage` with its rows in Hugging Face's order; `head_dim` if the rows of every head lie in pairs."""
    return storage if head_dim is None else PairedHeads(storage, head_dim)


def check_heads(name: str, shape: tuple[int, ...], head_dim: int | None) -> None:
    """Raise CheckpointError if the tensor `name` cannot be divided into heads of so many rows."""
    if head_dim is not None and (len(shape) != 2 or head_dim < 2 or head_dim % 2 or shape[0] % head_dim):
        raise CheckpointError(
            f"tensor {shown(name)} of shape {list(shape)} does not divide into heads of {head_dim} rows"
        )

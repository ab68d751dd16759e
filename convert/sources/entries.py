"""What a safetensors header lists, as tensors of a source; reads no weights."""

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.files.safetensors import TensorEntry

from .source import FLOAT_KINDS, SourceTensor, Stored


def plain_tensor(entry: TensorEntry, name: str, head_dim: int | None = None) -> SourceTensor:
    """Return `entry` as the tensor `name`; `head_dim` if the rows of every head lie in pairs.

    Raises CheckpointError if it is no tensor of weights, or does not divide into heads.
    """
    if entry.dtype not in FLOAT_KINDS:
        raise CheckpointError(
            f"tensor {shown(entry.name)} is stored as {entry.dtype}; only {', '.join(FLOAT_KINDS)} can be converted"
        )
    check_heads(entry, head_dim)
    return SourceTensor(name, entry.dtype, entry.shape, (stored(entry),), rotary_dim=head_dim)


def stored(entry: TensorEntry) -> Stored:
    """Return where `entry` lies, row by row; a vector is one row. Raises CheckpointError if there is nothing in it."""
    if not entry.nbytes or not entry.shape:
        raise CheckpointError(f"tensor {shown(entry.name)} has the impossible shape {list(entry.shape)}")
    rows = entry.shape[0] if len(entry.shape) == 2 else 1
    return Stored(entry.file, entry.start, rows, entry.nbytes // rows, dtype=entry.dtype)


def check_heads(entry: TensorEntry, head_dim: int | None) -> None:
    """Raise CheckpointError if `entry` cannot be divided into heads of so many rows."""
    shape = entry.shape
    if head_dim is not None and (len(shape) != 2 or head_dim < 2 or head_dim % 2 or shape[0] % head_dim):
        raise CheckpointError(
            f"tensor {shown(entry.name)} of shape {list(shape)} does not divide into heads of {head_dim} rows"
        )

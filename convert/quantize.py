"""One tensor at a time from the source into the target, with the error this costs; decides nothing.

A tensor passes through in blocks of rows. Groups lie inside rows, so packing a block at a time gives the same bits as
packing the whole.
"""

import math
from collections.abc import Callable

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mistral_mlx.errors import CheckpointError, ConversionError, shown

from .packed import repack
from .plan import Step
from .source import PACKED_KINDS, Bytes, SourceTensor, read_blocks
from .writer import ShardWriter

MLX_DTYPES = {"F16": mx.float16, "BF16": mx.bfloat16, "F32": mx.float32}
NUMPY_DTYPES = {"F16": np.float16, "F32": np.float32}
LARGEST = {"F16": 65504.0, "BF16": float.fromhex("0x1.fep127"), "F32": math.inf}

Floats = npt.NDArray[np.float32]


def run_step(
    step: Step, writer: ShardWriter, *, allow_nonfinite: bool, on_block: Callable[[int], None]
) -> float | None:
    """Write what becomes of the tensor of `step`, calling `on_block` with the bytes read so far from it.

    Returns the relative error ``|w - unpacked| / |w|`` of a tensor that was quantized; None if it was not, or if it
    holds NaN or infinity.

    Raises CheckpointError if the tensor holds NaN or infinity, ConversionError if a value is too large for its dtype.
    """
    error, norm, done = 0.0, 0.0, 0
    for rows in read_blocks(step.tensor):
        if step.carried:
            _append(step, writer, *repack(rows, step.tensor.kind, NUMPY_DTYPES[step.dtype], name=step.tensor.name))
        else:
            weight = _decode(rows, step.tensor)
            exact = _floats(weight)
            _check(exact, step, allow_nonfinite)
            parts = _pack(weight.astype(MLX_DTYPES[step.dtype]), step)
            _append(step, writer, *map(_host, parts))
            if step.packing:
                error += _squares(exact - _unpack(parts, step))
                norm += _squares(exact)
        done += rows.nbytes
        on_block(done)
    if step.packing is None or step.carried:
        return None
    relative = math.sqrt(error / norm) if norm else 0.0
    return relative if math.isfinite(relative) else None


def _decode(rows: Bytes, tensor: SourceTensor) -> mx.array:
    """Return the weights of stored rows: [rows, bytes] -> [rows, columns]."""
    if tensor.kind == "BF16":
        return mx.array(rows.view("<u2")).view(mx.bfloat16)
    if tensor.kind in PACKED_KINDS:
        from gguf import GGMLQuantizationType, quants  # slow to import, and for GGUF alone

        return mx.array(quants.dequantize(rows, GGMLQuantizationType[tensor.kind]))
    return mx.array(rows.view("<f4" if tensor.kind == "F32" else "<f2"))


def _check(exact: Floats, step: Step, allow_nonfinite: bool) -> None:
    largest = max(float(exact.max()), -float(exact.min()))  # NaN if there is one anywhere
    if not math.isfinite(largest):
        if not allow_nonfinite:
            raise CheckpointError(
                f"tensor {shown(step.tensor.name)} holds NaN or infinity, so the source is damaged; fetch it again, "
                "or convert it all the same with --allow-nonfinite"
            )
        largest = float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0))
    if largest > LARGEST[step.dtype]:
        raise ConversionError(
            f"tensor {shown(step.tensor.name)} holds {largest:.6g}, more than {step.dtype} can "
            f"({LARGEST[step.dtype]:.6g}); use --dtype bfloat16 or float32"
        )


def _pack(weight: mx.array, step: Step) -> tuple[mx.array, ...]:
    if step.packing is None:
        return (weight,)
    return tuple(mx.quantize(weight, group_size=step.packing.group_size, bits=step.packing.bits))


def _unpack(parts: tuple[mx.array, ...], step: Step) -> Floats:
    assert step.packing is not None
    scales, biases = (part.astype(mx.float32) for part in parts[1:])  # in half, sums would add an error of their own
    return _floats(mx.dequantize(parts[0], scales, biases, group_size=step.packing.group_size, bits=step.packing.bits))


def _squares(values: Floats) -> float:
    flat = values.reshape(-1)
    return float(np.vdot(flat, flat))


def _append(step: Step, writer: ShardWriter, *parts: npt.NDArray[np.generic]) -> None:
    for output, part in zip(step.outputs, parts, strict=True):
        writer.append(output.name, part)


def _floats(array: mx.array) -> Floats:
    return np.asarray(array.astype(mx.float32))


def _host(array: mx.array) -> npt.NDArray[np.generic]:
    """Return the same bits as a NumPy array, which has no bfloat16."""
    return np.asarray(array.view(mx.uint16) if array.dtype == mx.bfloat16 else array)

"""One tensor at a time from the source into the target, with the error this costs; decides nothing.

A tensor passes through in blocks of rows, the next ones being read and the last ones written meanwhile. Groups lie
inside rows, so packing a block at a time gives the same bits as packing the whole.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import islice

import numpy as np
import numpy.typing as npt

from mistral_mlx import kernels
from mistral_mlx.convert.files.pipeline import ahead
from mistral_mlx.convert.files.safetensors_writer import ShardWriter
from mistral_mlx.convert.plan.plan import Step
from mistral_mlx.convert.rounding.compensate import compensated
from mistral_mlx.convert.rounding.inputs import Inputs
from mistral_mlx.convert.sources.mlx import KIND as MLX_KIND
from mistral_mlx.convert.sources.source import Block, Bytes, read_blocks
from mistral_mlx.convert.storage.decode import plain, repack
from mistral_mlx.errors import CheckpointError, ConversionError, shown
from mistral_mlx.kernels.fallback.packing import MLX_DTYPES, Quantized, decode, floats, host, largest_finite

NUMPY_DTYPES = {"F16": np.float16, "F32": np.float32}
LARGEST = {"F16": 65504.0, "BF16": float.fromhex("0x1.fep127"), "F32": math.inf}

TOGETHER = 8  # blocks whose rows are compensated abreast: many at a time take little longer than a few
Squares = npt.NDArray[np.float32]
Importance = Mapping[str, Squares]  # by module, [columns]; finite and not negative
Parts = tuple[npt.NDArray[np.generic], ...]


def run_step(
    step: Step,
    writer: ShardWriter,
    *,
    allow_nonfinite: bool,
    on_block: Callable[[int], None],
    importance: Importance | None = None,
    inputs: Mapping[str, Inputs] | None = None,
) -> float | None:
    """Write what becomes of the tensor of `step`, calling `on_block` with the bytes read so far from it.

    A search for scales weighs the error of each input channel by the `importance` of its module, if that is known, or
    by the squares of its `inputs`. Errors make up for one another if the step asks for it and the inputs are known.

    Returns the relative error ``|w - unpacked| / |w|`` of a tensor that was quantized; None if it was not, or if it
    holds NaN or infinity.

    Raises CheckpointError if the tensor holds NaN or infinity, ConversionError if a value is too large for its dtype.
    """
    error, norm, done = 0.0, 0.0, 0
    seen = (inputs or {}).get(step.path)
    squares = (importance or {}).get(step.path) if seen is None else seen.squares
    with closing(ahead(read_blocks(step.tensor))) as blocks:
        while chunk := list(islice(blocks, TOGETHER if seen and step.compensate else 1)):
            if step.carried:
                _append(step, writer, _carried(chunk[0], step))
            elif step.packing is None:
                _append(step, writer, (_cast(chunk[0], step, allow_nonfinite),))
            else:
                packed = _compensate(chunk, step, seen) if seen and step.compensate else _pack(chunk[0], step, squares)
                _check(packed.largest, packed.finite, step, allow_nonfinite)
                _append(step, writer, tuple(part for part in packed[:3] if part is not None))
                error += packed.error
                norm += packed.norm
            done += sum(rows.nbytes for block in chunk for rows in block[: len(step.tensor.arrays)])
            on_block(done)
    if step.packing is None or step.carried:
        return None
    relative = math.sqrt(error / norm) if norm else 0.0
    return relative if math.isfinite(relative) else None


def _carried(block: Block, step: Step) -> Parts:
    if step.tensor.kind == MLX_KIND:
        return block  # packed, scales and biases, in the dtype they have
    return repack(block, step.tensor, NUMPY_DTYPES[step.dtype])


def _pack(block: Block, step: Step, importance: Squares | None) -> Quantized:
    assert step.packing is not None
    bits, group_size, mode = step.packing
    return kernels.quantize(
        *plain(block, step.tensor),
        step.dtype,
        group_size=group_size,
        bits=bits,
        mode=mode,
        search=step.search,
        importance=importance,
    )


def _compensate(chunk: list[Block], step: Step, inputs: Inputs) -> Quantized:
    assert step.packing is not None
    weight = np.concatenate([floats(decode(*plain(block, step.tensor))) for block in chunk])
    return compensated(weight, inputs, step.packing, step.dtype)


def _cast(block: Block, step: Step, allow_nonfinite: bool) -> Bytes:
    weight = decode(*plain(block, step.tensor))
    _check(*largest_finite(floats(weight)), step, allow_nonfinite)
    return host(weight.astype(MLX_DTYPES[step.dtype]))


def _check(largest: float, finite: bool, step: Step, allow_nonfinite: bool) -> None:
    """Raise what is to be raised for weights whose `largest` finite magnitude this is."""
    if not finite and not allow_nonfinite:
        raise CheckpointError(
            f"tensor {shown(step.tensor.name)} holds NaN or infinity, so the source is damaged; fetch it again, "
            "or convert it all the same with --allow-nonfinite"
        )
    if largest > LARGEST[step.dtype]:
        raise ConversionError(
            f"tensor {shown(step.tensor.name)} holds {largest:.6g}, more than {step.dtype} can "
            f"({LARGEST[step.dtype]:.6g}); use --dtype bfloat16 or float32"
        )


def _append(step: Step, writer: ShardWriter, parts: Parts) -> None:
    for output, part in zip(step.outputs, parts, strict=True):
        writer.append(output.name, part)

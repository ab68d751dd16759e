"""One tensor at a time from the source into the target, with the error this costs; decides nothing.

A tensor passes through in blocks of rows, the next ones being read and the last ones written meanwhile. Groups lie
inside rows, so packing a block at a time gives the same bits as packing the whole.
"""

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from itertools import islice

import numpy as np

from mistral_mlx import kernels
from mistral_mlx.convert.files.pipeline import ahead
from mistral_mlx.convert.files.safetensors_writer import ShardWriter
from mistral_mlx.convert.plan.step import Step
from mistral_mlx.convert.rounding.compensate import compensated
from mistral_mlx.convert.rounding.inputs import Inputs
from mistral_mlx.convert.storage.rows import Array, Bytes, Floats, Rows
from mistral_mlx.errors import CheckpointError, ConversionError, shown
from mistral_mlx.kernels.dtypes import MLX_DTYPES
from mistral_mlx.kernels.fallback.packing import Quantized, floats, host, largest_finite

LARGEST = {"F16": 65504.0, "BF16": float.fromhex("0x1.fep127"), "F32": math.inf}

TOGETHER = 8  # blocks whose rows are compensated abreast: many at a time take little longer than a few


def run_step(
    step: Step,
    writer: ShardWriter,
    *,
    on_block: Callable[[int], None],
    inputs: Mapping[str, Inputs] | None = None,
) -> float | None:
    """Write what becomes of the tensor of `step`, calling `on_block` with the bytes read so far from it.

    A search for scales weighs the error of each input channel by the squares of the `inputs` of its module, if they
    are known; of an expert's matrix, by those of this expert. Errors make up for one another if the step asks for it
    and the inputs are known.

    Returns the relative error ``|w - unpacked| / |w|`` of a tensor that was quantized; None if it was not, or if it
    holds NaN or infinity.

    Raises CheckpointError if the tensor holds NaN or infinity, ConversionError if a value is too large for its dtype.
    """
    error, norm, done = 0.0, 0.0, 0
    for matrix in step.tensor.matrices():
        seen = (inputs or {}).get(matrix.path)
        with closing(ahead(matrix.blocks())) as blocks:
            while chunk := list(islice(blocks, TOGETHER if seen and step.compensate else 1)):
                packed = _write(step, writer, chunk, seen)
                if packed is not None:
                    error += packed.error
                    norm += packed.norm
                done += sum(rows.n_rows for rows in chunk)
                on_block(step.tensor.nbytes * done // step.tensor.rows)
    if step.packing is None or step.carried:
        return None
    relative = math.sqrt(error / norm) if norm else 0.0
    return relative if math.isfinite(relative) else None


def _write(step: Step, writer: ShardWriter, chunk: list[Rows], inputs: Inputs | None) -> Quantized | None:
    """Write what becomes of some rows, and return it if they were quantized."""
    if step.carried:
        _append(step, writer, chunk[0].affine(step.dtype).parts)
        return None
    if step.packing is None:
        _append(step, writer, (_cast(chunk[0], step),))
        return None
    squares = None if inputs is None else inputs.squares
    packed = _compensate(chunk, step, inputs) if inputs and step.compensate else _pack(chunk[0], step, squares)
    _check(packed.largest, packed.finite, step)
    biases = () if packed.biases is None else (packed.biases,)
    _append(step, writer, (packed.weight, packed.scales, *biases))
    return packed


def _pack(rows: Rows, step: Step, importance: Floats | None) -> Quantized:
    assert step.packing is not None
    bits, group_size, mode = step.packing
    weights = rows.weights()
    return kernels.quantize(
        weights.raw,
        weights.dtype,
        step.dtype,
        group_size=group_size,
        bits=bits,
        mode=mode,
        search=step.search,
        importance=importance,
    )


def _compensate(chunk: list[Rows], step: Step, inputs: Inputs) -> Quantized:
    assert step.packing is not None
    weights = np.concatenate([rows.weights().floats() for rows in chunk])
    return compensated(weights, inputs, step.packing, step.dtype)


def _cast(rows: Rows, step: Step) -> Bytes:
    weights = rows.weights().array()
    _check(*largest_finite(floats(weights)), step)
    return host(weights.astype(MLX_DTYPES[step.dtype]))


def _check(largest: float, finite: bool, step: Step) -> None:
    """Raise what is to be raised for weights whose `largest` finite magnitude this is."""
    if not finite and not step.allow_nonfinite:
        raise CheckpointError(
            f"tensor {shown(step.tensor.name)} holds NaN or infinity, so the source is damaged; fetch it again, "
            "or convert it all the same with --allow-nonfinite"
        )
    if largest > LARGEST[step.dtype]:
        raise ConversionError(
            f"tensor {shown(step.tensor.name)} holds {largest:.6g}, more than {step.dtype} can "
            f"({LARGEST[step.dtype]:.6g}); use --dtype bfloat16 or float32"
        )


def _append(step: Step, writer: ShardWriter, parts: tuple[Array, ...]) -> None:
    for output, part in zip(step.outputs, parts, strict=True):
        writer.append(output.name, part)

"""Rounding whose errors make up for one another: GPTQ (Frantar et al., 2022) in MLX's affine form.

A product's error is ``|X (w - q)|^2 = (w - q)^T H (w - q)`` with ``H = X^T X`` of a text. Columns are rounded in their
order; what one loses is put on those behind it, in the amounts that make the error smallest. With ``H^-1 = R^T R``, R
upper triangular, column k of w passes on ``(w_k - q_k) / R_kk * R_kj`` to each j > k. The scales of a group are
searched for when its turn comes, for the weights as they are by then, weighing each input by its squares.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from mistral_mlx import kernels
from mistral_mlx.args import Packing
from mistral_mlx.kernels.packing import Quantized, decode, floats, largest_finite, pack

from .calibrate import Floats, Inputs

DAMPING = 0.01  # of the mean diagonal of H, added to it


def compensated(weight: Floats, inputs: Inputs, packing: Packing, dtype: str) -> Quantized:
    """Return rows of weights ``[n, K]`` packed, scales and biases of `dtype` (F32, F16 or BF16)."""
    largest, finite = largest_finite(weight)
    codes = np.empty(weight.shape, np.uint8)
    unpacked = np.empty_like(weight)
    lines: list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]] = []
    for i, (start, stop) in enumerate(inputs.spans):
        lines += _part(
            weight[:, start:stop],
            factor(inputs, i),
            np.diag(inputs.parts[i]),
            packing,
            dtype,
            codes[:, start:stop],
            unpacked[:, start:stop],
        )
    scales, biases = (np.concatenate([line[i] for line in lines], axis=1) for i in (0, 1))
    with np.errstate(all="ignore"):
        error, norm = float(np.square(weight - unpacked).sum()), float(np.square(weight).sum())
    return Quantized(pack(codes, packing.bits), scales, biases, error, norm, largest, finite)


@lru_cache(maxsize=4)  # of the modules that share their inputs, and the parts of a wide one
def factor(inputs: Inputs, part: int) -> Floats:
    """Return the upper triangular R with ``R^T R = (H + damping)^-1`` for a part of the columns."""
    h = inputs.parts[part].astype(np.float64)
    diagonal = np.diag_indices_from(h)
    h[diagonal] += DAMPING * float(np.mean(h[diagonal])) or 1.0  # inputs that are never there leave nothing to weigh
    # Read backwards, the lower factor is an upper one U with H = U U^T, and so H^-1 = (U^-1)^T U^-1.
    upper = np.linalg.cholesky(h[::-1, ::-1])[::-1, ::-1]
    return np.triu(np.linalg.inv(upper)).astype(np.float32)


def _part(
    weight: Floats,
    r: Floats,
    squares: Floats,
    packing: Packing,
    dtype: str,
    codes: npt.NDArray[np.uint8],
    unpacked: Floats,
) -> list[tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]]:
    """Round columns that share a factor `r`, filling `codes` and `unpacked`; return each group's scales and biases."""
    w = np.ascontiguousarray(weight.T)  # [K, n]: a column is one piece of memory
    most, lines = np.float32(2**packing.bits - 1), []
    importance = squares / (squares.max() or 1.0)
    for start in range(0, len(w), packing.group_size):
        stop = start + packing.group_size
        found = kernels.quantize(
            np.ascontiguousarray(w[start:stop].T).view(np.uint8),
            "F32",
            dtype,
            group_size=packing.group_size,
            bits=packing.bits,
            search=True,
            importance=np.ascontiguousarray(importance[start:stop]),
        )
        assert found.biases is not None  # as in every affine packing
        lines.append((found.scales, found.biases))
        scale, bias = (floats(decode(part, dtype))[:, 0] for part in lines[-1])
        lost = np.empty((packing.group_size, w.shape[1]), np.float32)
        with np.errstate(all="ignore"):  # weights may be NaN if the user wants them
            step = np.where(scale == 0, np.float32(1), scale)
            for k in range(start, stop):
                code = np.clip(np.rint((w[k] - bias) / step), 0, most)
                codes[:, k], unpacked[:, k] = np.nan_to_num(code), code * scale + bias
                lost[k - start] = (w[k] - unpacked[:, k]) / r[k, k]
                w[k + 1 : stop] -= r[k, k + 1 : stop, None] * lost[k - start]
            w[stop:] -= r[start:stop, stop:].T @ lost
    return lines

"""Rounding whose errors make up for one another: GPTQ (Frantar et al., 2022) in MLX's affine form.

A product's error is ``|X (w - q)|^2 = (w - q)^T H (w - q)`` with ``H = X^T X`` of a text. Columns are rounded in their
order; what one loses is put on those behind it, in the amounts that make the error smallest. With ``H^-1 = R^T R``, R
upper triangular, column k of w passes on ``(w_k - q_k) / R_kk * R_kj`` to each j > k. The scales of a group are
searched for when its turn comes, for the weights as they are by then, weighing each input by its squares.
"""

import numpy as np
import numpy.typing as npt

from mistral_mlx import kernels
from mistral_mlx.kernels.fallback.packing import Quantized, decode, floats, largest_finite, pack
from mistral_mlx.model.packing import Packing

from .inputs import Floats, Inputs

DAMPING = 0.01  # of the mean diagonal of H, added to it
SMALL = 256  # rows of a matrix that LAPACK inverts whole

Bytes = npt.NDArray[np.uint8]
Doubles = npt.NDArray[np.float64]


def compensated(weight: Floats, inputs: Inputs, packing: Packing, dtype: str) -> Quantized:
    """Return rows of weights ``[n, K]`` packed, scales and biases of `dtype` (F32, F16 or BF16)."""
    largest, finite = largest_finite(weight)
    columns = np.ascontiguousarray(weight.T)  # [K, n]: one column is one piece of memory
    codes = np.empty(columns.shape, np.uint8)
    lines: list[tuple[Bytes, Bytes]] = []
    with np.errstate(all="ignore"):  # weights may be NaN if the user wants them
        for part, (start, stop) in enumerate(inputs.spans):
            r, squares = factor(inputs, part), np.diag(inputs.parts[part])
            lines += _part(columns[start:stop], codes[start:stop], r, squares, packing, dtype)
        error, norm = float(np.square(weight - columns.T).sum()), float(np.square(weight).sum())
    scales, biases = (np.concatenate([line[i] for line in lines], axis=1) for i in (0, 1))
    return Quantized(pack(np.ascontiguousarray(codes.T), packing.bits), scales, biases, error, norm, largest, finite)


def factor(inputs: Inputs, part: int) -> Floats:
    """Return the upper triangular R with ``R^T R = (H + damping)^-1`` for a part of the columns."""
    if part not in inputs.factors:
        inputs.factors[part] = _factor(inputs.parts[part].astype(np.float64))
    return inputs.factors[part]


def _factor(h: Doubles) -> Floats:
    diagonal = np.diag_indices_from(h)
    h[diagonal] += DAMPING * float(np.mean(h[diagonal])) or 1.0  # inputs that are never there leave nothing to weigh
    # Read backwards, the lower factor is an upper one U with H = U U^T, and so H^-1 = (U^-1)^T U^-1.
    lower = np.asarray(np.linalg.cholesky(h[::-1, ::-1]), np.float64)
    return _inverse(lower[::-1, ::-1]).astype(np.float32)


def _inverse(upper: Doubles) -> Doubles:
    """Return the inverse of an upper triangular matrix, by halves: three times as fast as that of any matrix."""
    n = len(upper)
    if n <= SMALL:
        return np.triu(np.linalg.inv(upper))
    half, out = n // 2, np.zeros_like(upper)
    first = out[:half, :half] = _inverse(upper[:half, :half])
    last = out[half:, half:] = _inverse(upper[half:, half:])
    out[:half, half:] = -first @ upper[:half, half:] @ last
    return out


def _part(
    w: Floats, codes: Bytes, r: Floats, squares: Floats, packing: Packing, dtype: str
) -> list[tuple[Bytes, Bytes]]:
    """Round columns ``[K, n]`` that share a factor `r` in place, filling `codes`; return scales and biases by group."""
    bits, group_size, _ = packing
    lines = []
    importance = squares / (squares.max() or 1.0)
    for start in range(0, len(w), group_size):
        stop = start + group_size
        rows = np.ascontiguousarray(w[start:stop].T).view(np.uint8)
        weighed = np.ascontiguousarray(importance[start:stop])
        found = kernels.quantize(rows, "F32", dtype, group_size=group_size, bits=bits, search=True, importance=weighed)
        assert found.biases is not None  # as in every affine packing
        lines.append((found.scales, found.biases))
        scale, bias = (floats(decode(part, dtype))[:, 0] for part in lines[-1])
        step = np.where(scale == 0, np.float32(1), scale)
        lost = np.empty((group_size, w.shape[1]), np.float32)
        for k in range(start, stop):
            code = np.clip(np.rint((w[k] - bias) / step), 0, 2**bits - 1)
            codes[k] = np.nan_to_num(code)
            rounded = code * scale + bias
            lost[k - start] = (w[k] - rounded) / r[k, k]
            w[k] = rounded
            w[k + 1 : stop] -= r[k, k + 1 : stop, None] * lost[k - start]
        w[stop:] -= r[start:stop, stop:].T @ lost
    return lines

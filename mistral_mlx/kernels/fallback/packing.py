"""Packs weights with MLX alone; the package uses this if the native kernels are missing."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mistral_mlx.kernels.dtypes import MLX_DTYPES

from .search import Lines, improve

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


class Quantized(NamedTuple):
    """Packed rows, as bytes, and their error."""

    weight: Bytes  # [rows, columns * bits / 8]
    scales: Bytes  # [rows, columns / group * bytes of their dtype]
    biases: Bytes | None  # only in affine mode
    error: float  # sum of (w - unpacked)^2
    norm: float  # sum of w^2
    largest: float  # largest magnitude of a finite weight
    finite: bool  # whether all weights are finite


def decode(rows: Bytes, stored: str) -> mx.array:
    """Return the weights of stored rows: [rows, bytes] -> [rows, columns]."""
    if stored == "BF16":
        return mx.array(rows.view("<u2")).view(mx.bfloat16)
    return mx.array(rows.view("<f4" if stored == "F32" else "<f2"))


def host(array: mx.array) -> Bytes:
    """Return the bytes of `array`; the last axis grows by the size of an item."""
    return np.asarray(array.view(mx.uint8))


def floats(array: mx.array) -> Floats:
    """Return the values in float32."""
    return np.asarray(array.astype(mx.float32))


def largest_finite(exact: Floats) -> tuple[float, bool]:
    """Return the largest magnitude of a finite value, and whether all values are finite."""
    largest = max(float(exact.max()), -float(exact.min()))  # NaN if any value is NaN
    if math.isfinite(largest):
        return largest, True
    return float(np.abs(exact[np.isfinite(exact)]).max(initial=0.0)), False


def quantize(
    rows: Bytes,
    stored: str,
    dtype: str,
    *,
    group_size: int,
    bits: int,
    search: bool = False,
    importance: Floats | None = None,
) -> Quantized:
    """See `kernels.quantize`."""
    weight = decode(rows, stored)
    exact = floats(weight)
    parts = mx.quantize(weight.astype(MLX_DTYPES[dtype]), group_size=group_size, bits=bits)
    if search:
        importance = np.ones(exact.shape[1], np.float32) if importance is None else importance
        parts = _improve(exact, importance, parts, group_size=group_size, bits=bits)
    scales, biases = (part.astype(mx.float32) for part in parts[1:])  # sums in float16 would add their own error
    lost = exact - floats(mx.dequantize(parts[0], scales, biases, group_size=group_size, bits=bits))
    packed, scale, bias = map(host, parts)
    return Quantized(packed, scale, bias, _squares(lost), _squares(exact), *largest_finite(exact))


def quantize_floats(rows: Bytes, stored: str, dtype: str, *, mode: str) -> Quantized:
    """Return rows in one of MLX's float modes, as `mx.quantize` packs them."""
    weight = decode(rows, stored)
    exact = floats(weight)
    codes, scales, *_ = mx.quantize(weight.astype(MLX_DTYPES[dtype]), mode=mode)
    lost = exact - floats(mx.dequantize(codes, scales, mode=mode, dtype=mx.float32))
    return Quantized(host(codes), host(scales), None, _squares(lost), _squares(exact), *largest_finite(exact))


def _improve(
    exact: Floats, importance: Floats, parts: Sequence[mx.array], *, group_size: int, bits: int
) -> tuple[mx.array, mx.array, mx.array]:
    weight, scales, biases = parts
    grouped = (-1, group_size)
    ones = mx.ones(scales.shape)  # scale 1 and bias 0, so that unpacking returns the codes
    codes = mx.dequantize(weight, ones, mx.zeros_like(ones), group_size=group_size, bits=bits)
    found = Lines(floats(scales).reshape(-1, 1), floats(biases).reshape(-1, 1), floats(codes).reshape(grouped))
    weighted = np.broadcast_to(importance, exact.shape).reshape(grouped)
    with np.errstate(all="ignore"):
        found = improve(exact.reshape(grouped), weighted, found, bits=bits, dtype=scales.dtype)
    scales, biases = (mx.array(part.reshape(scales.shape)).astype(scales.dtype) for part in found[:2])
    return mx.array(pack(found.codes.reshape(exact.shape).astype(np.uint8), bits).view("<u4")), scales, biases


def pack(codes: Bytes, bits: int) -> Bytes:
    """Return codes [rows, columns] as bits, low bits first: [rows, columns * bits / 8]."""
    stream = np.unpackbits(codes[..., None], axis=-1, count=bits, bitorder="little")
    return np.packbits(stream.reshape(len(codes), -1), axis=-1, bitorder="little")


def _squares(values: Floats) -> float:
    flat = values.reshape(-1)
    return float(np.vdot(flat, flat))

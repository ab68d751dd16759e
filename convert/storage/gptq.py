"""4-bit weights of AutoAWQ and 2-, 4- and 8-bit ones of AutoGPTQ: unpacked, or as MLX's affine form.

Both have w = scale * (q - zero) with a scale and a zero for each group of in-features, and both are stored transposed,
in words of 32 bits, lowest bits first (AutoAWQ awq/modules/linear/gemm.py, AutoGPTQ auto_gptq/nn_modules/qlinear/):

             qweight                                   qzeros [groups, out / 8]       scales [groups, out]
    AWQ      [in, out / 8]: outs 0 2 4 6 1 3 5 7       outs in the same order
    GPTQ     [in * bits / 32, out]: ins in order       outs in order, less one        g_idx [in]: the group of each in

So one cannot be read as the other. "Less one" is how version 1 of GPTQ's format stores a zero, in as many bits, so
that 0 becomes the largest code; "gptq_v2" stores it as it is. MLX's bias is -scale * zero: in float16 it is rounded, by
at most zero / 2048 of a scale, and not at all where the zero is a power of two, as it is in symmetric GPTQ.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.kernels.fallback.packing import decode, floats
from mistral_mlx.model.packing import Packing

from . import bits as bits_of
from .rows import Bytes, Floats, Packed, Rows, Storage, Stored, Weights, read_whole

AWQ, GPTQ, GPTQ_V2 = KINDS = ("AWQ", "GPTQ", "GPTQ v2")
COLUMNS = 256  # unpacked at a time
AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # the out-features in a word, lowest bits first
DTYPES = {"F16": np.float16, "F32": np.float32}


@dataclass(frozen=True)
class Gptq(Storage):
    """A weight [out, in] with a scale and a zero for each group of in-features."""

    qweight: Stored
    qzeros: Stored
    scales: Stored
    order: Stored | None  # the group of each in-feature, if groups are scattered
    kind: str  # one of KINDS
    bits: int
    shape: tuple[int, int]
    packing: Packing | None  # None if MLX has no such groups

    @property
    def label(self) -> str:
        return self.kind

    @property
    def arrays(self) -> tuple[Stored, ...]:
        parts = (self.qweight, self.qzeros, self.scales)
        return parts if self.order is None else (*parts, self.order)

    @property
    def dtype(self) -> str:
        return self.scales.dtype

    @property
    def exact(self) -> Packing | None:
        return self.packing

    @property
    def exact_dtypes(self) -> tuple[str, ...]:
        return ("F16", "F32") if self.dtype == "F16" else ("F32",)

    @property
    def unit(self) -> int:
        return self.shape[0]  # rows of the file are columns of the weight

    def blocks(self, step: int) -> Iterator[Rows]:
        assert step >= self.shape[0]
        parts = [read_whole(array) for array in (self.qweight, self.qzeros, self.scales)]
        order = None if self.order is None else read_whole(self.order).view("<i4")[0]
        zeros = bits_of.unpack(parts[1], self.bits)
        if self.kind == AWQ:
            zeros = _in_order(zeros)
        elif self.kind == GPTQ:
            zeros = zeros + np.uint8(1) & np.uint8((1 << self.bits) - 1)
        yield GptqRows(parts[0], zeros, floats(decode(parts[2], self.scales.dtype)), order, self)

    def loss(self, dtype: str) -> str:
        if dtype != "F16":
            return ""
        bound = (2**self.bits - 1) / 2048
        return (
            f"; scale * zero is rounded to float16, by at most {bound:.2g} of a step, and by nothing with "
            "--dtype float32"
        )


@dataclass(frozen=True)
class GptqRows(Rows):
    """All rows of a Gptq."""

    raw: Bytes
    zeros: Bytes  # [groups, out]
    scales: Floats  # [groups, out]
    order: npt.NDArray[np.int32] | None  # [in]
    storage: Gptq

    @property
    def n_rows(self) -> int:
        return self.storage.shape[0]

    def weights(self) -> Weights:
        n_in = self.storage.shape[1]
        group = np.arange(n_in) // (n_in // len(self.zeros)) if self.order is None else self.order
        weights = np.empty(self.storage.shape, np.float32)
        with np.errstate(invalid="ignore", over="ignore"):  # a damaged scale makes NaN or infinity, which is told later
            for part, codes in self._codes():
                exact = (codes.astype(np.float32) - self.zeros[group[part]]) * self.scales[group[part]]
                weights[:, part] = exact.T
        return Weights.of(weights)

    def affine(self, dtype: str) -> Packed:
        packing, (n_out, n_in), bits = self.storage.packing, self.storage.shape, self.storage.bits
        assert packing is not None
        repeats = n_in // packing.group_size // len(self.zeros)  # MLX knows no larger groups, but several alike
        scales = np.repeat(self.scales.T, repeats, axis=1)  # [groups, out] -> [out, groups of MLX]
        with np.errstate(invalid="ignore", over="ignore"):
            biases = (-np.repeat(self.zeros.T, repeats, axis=1).astype(np.float32) * scales).astype(DTYPES[dtype])
        if not (np.isfinite(scales).all() and np.isfinite(biases).all()):
            raise CheckpointError(
                f"tensor {shown(self.storage.qweight.tensor)} has a group whose scale is not finite or too large for "
                f"{biases.dtype.name}; the file may be damaged, otherwise --dtype float32 holds it"
            )
        weight = np.empty((n_out, n_in * bits // 32), np.uint32)
        for part, codes in self._codes():
            words = bits_of.pack(np.ascontiguousarray(codes.T), bits).view("<u4")
            weight[:, part.start * bits // 32 : part.stop * bits // 32] = words
        return Packed(weight, scales.astype(DTYPES[dtype]), biases)

    def _codes(self) -> Iterator[tuple[slice, Bytes]]:
        """Yield COLUMNS in-features after the other, with their codes [ins, out]."""
        bits, is_awq, n_in = self.storage.bits, self.storage.kind == AWQ, self.storage.shape[1]
        per_row = 1 if is_awq else 32 // bits  # in-features in a row of the file
        for start in range(0, n_in, COLUMNS):
            part = slice(start, min(start + COLUMNS, n_in))
            some = self.raw[part.start // per_row : part.stop // per_row]
            yield part, _in_order(bits_of.unpack(some, bits)) if is_awq else _below(some, bits)


def _below(rows: Bytes, bits: int) -> Bytes:
    """Return the codes of words that hold them one below the other: [rows, bytes] -> [rows * codes, words]."""
    words = rows.view("<u4")
    codes = np.stack([(words >> np.uint32(shift)).astype(np.uint8) for shift in range(0, 32, bits)], axis=1)
    return codes.reshape(-1, words.shape[1]) & np.uint8((1 << bits) - 1)


def _in_order(codes: Bytes) -> Bytes:
    ordered = np.empty_like(codes).reshape(len(codes), -1, 8)
    ordered[..., AWQ_ORDER] = codes.reshape(ordered.shape)
    return ordered.reshape(codes.shape)

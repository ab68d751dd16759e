"""The layers that hold weights, plain or packed, and hand them as `parts` to the products of `kernels`."""

import mlx.core as mx
import mlx.nn as nn

from . import kernels
from .args import Packing


class RMSNorm(nn.Module):
    """Root mean square normalization over the last axis (Zhang and Sennrich, 2019)."""

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.weight = mx.ones((dim,))
        self.eps = eps

    def __call__(self, x: mx.array) -> mx.array:
        return kernels.rms_norm(x, self.weight, self.eps)

    @property
    def parts(self) -> kernels.Norm:
        """What a product needs to normalize its own input."""
        return kernels.Norm(self["weight"], self.eps)


class Linear(nn.Module):
    """A product with a weight ``[n_out, n_in]``, without bias."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = mx.zeros((n_out, n_in))

    @property
    def parts(self) -> kernels.Weight:
        """What a product needs."""
        return kernels.Weight(self["weight"])

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype in which the layer is stored."""
        return self.parts.weight.dtype

    def quantized(self, packing: Packing) -> "QuantizedLinear":
        """Return the layer of the same shape whose weight is packed."""
        n_out, n_in = self.weight.shape
        return QuantizedLinear(n_in, n_out, packing)


class Embedding(nn.Module):
    """A table ``[n_rows, dim]`` looked up by id; as a tied output head, its own transpose."""

    def __init__(self, n_rows: int, dim: int) -> None:
        super().__init__()
        self.weight = mx.zeros((n_rows, dim))

    def __call__(self, ids: mx.array) -> mx.array:
        return self.weight[ids].astype(kernels.activation_dtype(self.weight.dtype))

    @property
    def parts(self) -> kernels.Weight:
        """What a product needs."""
        return kernels.Weight(self["weight"])

    def quantized(self, packing: Packing) -> "QuantizedEmbedding":
        """Return the layer of the same shape whose weight is packed."""
        n_rows, dim = self.weight.shape
        return QuantizedEmbedding(dim, n_rows, packing)


class QuantizedLinear(nn.Module):
    """A product with a weight ``[n_out, n_in]`` in MLX's affine form: ``w = scale * q + bias`` per group of inputs.

    ``weight`` is uint32 ``[n_out, n_in * bits / 32]``, low bits first; ``scales`` and ``biases`` are
    ``[n_out, n_in / group_size]``.
    """

    def __init__(self, n_in: int, n_out: int, packing: Packing) -> None:
        super().__init__()
        self.bits, self.group_size, _ = bits, group_size, _ = packing
        self.weight = mx.zeros((n_out, n_in * bits // 32), mx.uint32)
        self.scales = mx.zeros((n_out, n_in // group_size))
        self.biases = mx.zeros((n_out, n_in // group_size))

    @property
    def parts(self) -> kernels.Weight:
        """What a product needs."""
        return kernels.Weight(self["weight"], self["scales"], self["biases"], self.group_size, self.bits)

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype in which the layer's scales are stored."""
        scales: mx.array = self["scales"]
        return scales.dtype


class QuantizedEmbedding(QuantizedLinear):
    """A packed table looked up by id; as a tied output head, its own transpose."""

    def __call__(self, ids: mx.array) -> mx.array:
        dtype = kernels.activation_dtype(self.scales.dtype)
        scales, biases = self.scales[ids].astype(dtype), self.biases[ids].astype(dtype)
        return mx.dequantize(self.weight[ids], scales, biases, group_size=self.group_size, bits=self.bits)

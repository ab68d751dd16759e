"""The layers that hold weights, plain or packed, and hand them as `parts` to the products of `kernels`."""

import mlx.core as mx
import mlx.nn as nn

from mistral_mlx import kernels

from .packing import Packing


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


class SwitchLinear(nn.Module):
    """A product with one of the weights of several experts, ``[n_experts, n_out, n_in]``, without bias."""

    def __init__(self, n_experts: int, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = mx.zeros((n_experts, n_out, n_in))

    @property
    def parts(self) -> kernels.Weight:
        """What a product needs; `kernels.Weight.expert` is that of one expert."""
        return kernels.Weight(self["weight"])

    def quantized(self, packing: Packing) -> "QuantizedSwitchLinear":
        """Return the layer of the same shape whose weight is packed."""
        n_experts, n_out, n_in = self.weight.shape
        return QuantizedSwitchLinear(n_in, n_out, packing, n_experts)


class Embedding(nn.Module):
    """A table ``[n_rows, dim]`` looked up by id; as a tied output head, its own transpose."""

    def __init__(self, n_rows: int, dim: int) -> None:
        super().__init__()
        self.weight = mx.zeros((n_rows, dim))

    def __call__(self, ids: mx.array) -> mx.array:
        if kernels.uses_native():
            return kernels.embedded(ids, self.parts)
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
    """A product with a weight ``[n_out, n_in]`` as MLX packs it, ``w = scale * q + bias`` per group of inputs.

    ``weight`` is uint32 ``[n_out, n_in * bits / 32]``, low bits first; ``scales`` and ``biases`` are
    ``[n_out, n_in / group_size]``. The float modes have scales of a byte, and no biases.
    """

    def __init__(self, n_in: int, n_out: int, packing: Packing, *experts: int) -> None:
        super().__init__()
        self.bits, self.group_size, self.mode = bits, group_size, mode = packing
        self.weight = mx.zeros((*experts, n_out, n_in * bits // 32), mx.uint32)
        self.scales = mx.zeros((*experts, n_out, n_in // group_size), mx.float32 if mode == "affine" else mx.uint8)
        if mode == "affine":
            self.biases = mx.zeros((*experts, n_out, n_in // group_size))

    @property
    def parts(self) -> kernels.Weight:
        """What a product needs."""
        return kernels.Weight(self["weight"], self["scales"], self.get("biases"), self.group_size, self.bits, self.mode)

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype in which the layer's scales are stored, or that MLX gives the weights of float modes."""
        scales: mx.array = self["scales"]
        return scales.dtype if self.mode == "affine" else mx.bfloat16


class QuantizedSwitchLinear(QuantizedLinear):
    """A product with one of the packed weights of several experts, ``[n_experts, n_out, n_in]``."""


class QuantizedEmbedding(QuantizedLinear):
    """A packed table looked up by id; as a tied output head, its own transpose."""

    def __call__(self, ids: mx.array) -> mx.array:
        if kernels.uses_native():
            return kernels.embedded(ids, self.parts)
        dtype = kernels.activation_dtype(self.dtype)
        scales, biases = self.scales[ids], None
        if self.mode == "affine":
            scales, biases = scales.astype(dtype), self.biases[ids].astype(dtype)
        return mx.dequantize(
            self.weight[ids], scales, biases, group_size=self.group_size, bits=self.bits, mode=self.mode, dtype=dtype
        )

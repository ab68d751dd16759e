"""The second half of a block: one feed-forward, or a mixture of several of which each token uses a few.

Letters in shapes: B batch, S new tokens, D dim, E experts, k of them used by a token.
"""

from collections.abc import Callable

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from mistral_mlx import kernels
from mistral_mlx.kernels.experts import gathered

from . import blocks
from .args import ModelArgs
from .layers import Linear, RMSNorm, SwitchLinear

Observe = Callable[[tuple[str, ...], mx.array], None]  # (paths of modules in a block, their inputs [B, S, K] or [n, K])


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.gate_proj = Linear(args.dim, args.hidden_dim)
        self.up_proj = Linear(args.dim, args.hidden_dim)
        self.down_proj = Linear(args.hidden_dim, args.dim)
        self.rank: int | None = None  # of this process among those that share the hidden units

    def __call__(self, x: mx.array, norm: RMSNorm) -> mx.array:
        """Return ``x`` plus the feed-forward of ``norm(x)``, ``[B, S, D]``."""
        h = kernels.swiglu(x, self.gate_proj.parts, self.up_proj.parts, norm.parts)
        return kernels.add_product(x, h, self.down_proj.parts, self.rank)

    def observed(self, x: mx.array, norm: RMSNorm, observe: Observe) -> mx.array:
        """Return the same; `observe` sees the inputs of the matrices."""
        *_, first, last = blocks.inputs(n_experts=0)
        h = norm(x)
        observe(first, h)
        h = kernels.swiglu(h, self.gate_proj.parts, self.up_proj.parts)
        observe(last, h)
        return kernels.add_product(x, h, self.down_proj.parts)


class SwitchFeedForward(nn.Module):
    """The weights of several feed-forwards."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.gate_proj = SwitchLinear(args.n_experts, args.dim, args.hidden_dim)
        self.up_proj = SwitchLinear(args.n_experts, args.dim, args.hidden_dim)
        self.down_proj = SwitchLinear(args.n_experts, args.hidden_dim, args.dim)

    @property
    def parts(self) -> tuple[kernels.Weight, kernels.Weight, kernels.Weight]:
        """What the products need."""
        return self.gate_proj.parts, self.up_proj.parts, self.down_proj.parts


class Mixture(nn.Module):
    """A sparse mixture of experts (Jiang et al., Mixtral of Experts, 2024, arXiv:2401.04088, section 2.1)."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.n_experts, self.n_used = args.n_experts, args.n_experts_per_token
        self.gate = Linear(args.dim, args.n_experts)
        self.switch_mlp = SwitchFeedForward(args)
        self.rank: int | None = None  # of this process among those that share the hidden units of every expert

    def __call__(self, x: mx.array, norm: RMSNorm) -> mx.array:
        """Return ``x`` plus the mixture of ``norm(x)``, ``[B, S, D]``."""
        if kernels.on_cpu():
            return self.observed(x, norm, lambda paths, inputs: None)
        h = norm(x)
        chosen, shares = self.route(h)
        return x + kernels.over_ranks(gathered(h, chosen, shares.astype(x.dtype), *self.switch_mlp.parts), self.rank)

    def observed(self, x: mx.array, norm: RMSNorm, observe: Observe) -> mx.array:
        """Return the same expert by expert; `observe` sees the inputs of the matrices, those of each expert apart."""
        router, *_ = blocks.MIXTURE
        h = norm(x)
        observe((router.path,), h)
        with kernels.exactly():
            chosen, shares = (np.asarray(part).reshape(-1, self.n_used) for part in self.route(h))
        h = h.reshape(-1, h.shape[-1])
        begin = x if self.rank is None else mx.zeros_like(x)
        y = np.array(begin.astype(mx.float32)).reshape(h.shape)
        for e in range(self.n_experts):
            rows, places = np.nonzero(chosen == e)
            if len(rows):
                y[rows] += shares[rows, places, None] * np.asarray(self._expert(e, h[mx.array(rows)], observe))
        own = mx.array(y).reshape(x.shape).astype(x.dtype)
        return own if self.rank is None else x + kernels.over_ranks(own, self.rank)

    def route(self, h: mx.array) -> tuple[mx.array, mx.array]:
        """Return the experts that each of the inputs ``[B, S, D]`` uses, and their shares, ``[B, S, k]`` each.

        They are those with the largest logits, and the float32 softmax over these: what HF's code normalizes again.
        """
        logits = kernels.products(h, [self.gate.parts])[0].astype(mx.float32)
        chosen = mx.argpartition(-logits, kth=self.n_used - 1, axis=-1)[..., : self.n_used]
        shares = mx.softmax(mx.take_along_axis(logits, chosen, axis=-1), axis=-1)
        if kernels.on_cpu():
            mx.eval(chosen, shares)  # as long as products are exact
        return chosen, shares

    def _expert(self, e: int, h: mx.array, observe: Observe) -> mx.array:
        """Return what the expert `e` makes of its inputs ``[n, D]``, float32."""
        gate, up, down = (weight.expert(e) for weight in self.switch_mlp.parts)
        _, first, second, last = (blocks.expert_path(module.path, e) for module in blocks.MIXTURE)
        observe((first, second), h)
        h = kernels.swiglu(h, gate, up)
        observe((last,), h)
        return kernels.products(h, [down])[0].astype(mx.float32)

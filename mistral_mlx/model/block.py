"""A transformer block: attention and feed-forward, each normalized before and added to the residual stream after.

Letters in shapes: B batch, S new tokens, T keys, H and Hkv heads, Dh head_dim, D dim.
"""

from functools import reduce
from operator import getitem

import mlx.core as mx
import mlx.nn as nn

from mistral_mlx import kernels
from mistral_mlx.kernels.memory import copies_fit

from . import blocks
from .args import ModelArgs
from .cache import RollingBufferCache
from .feed_forward import FeedForward, Mixture, Observe
from .layers import Linear, RMSNorm
from .rope import rotation


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al., 2023) with rotary positions (Su et al., 2021; halves, not pairs)."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = args.n_heads, args.n_kv_heads, args.head_dim
        self.rotation = rotation(args.head_dim, args.rope_theta, args.rope_scaling)
        self.query_scale = args.query_scale
        self.q_proj = Linear(args.dim, args.n_heads * args.head_dim)
        self.k_proj = Linear(args.dim, args.n_kv_heads * args.head_dim)
        self.v_proj = Linear(args.dim, args.n_kv_heads * args.head_dim)
        self.o_proj = Linear(args.n_heads * args.head_dim, args.dim)
        self.rank: int | None = None  # of this process among those that share the heads

    def __call__(self, x: mx.array, norm: RMSNorm, cache: RollingBufferCache) -> mx.array:
        """Return ``x`` plus the attention of ``norm(x)``, ``[B, S, D]``."""
        projections = [self.q_proj.parts, self.k_proj.parts, self.v_proj.parts]
        q, k, v = kernels.products(x, projections, norm.parts)
        h = self.attend(q, k, v, cache)
        return kernels.add_product(x, h, self.o_proj.parts, self.rank)

    def attend(self, q: mx.array, k: mx.array, v: mx.array, cache: RollingBufferCache) -> mx.array:
        """Return ``[B, S, H*Dh]`` for queries of that shape and ``[B, S, Hkv*Dh]`` keys and values."""
        q, k, v = self._split(q, self.n_heads), self._split(k, self.n_kv_heads), self._split(v, self.n_kv_heads)
        position = cache.offset
        q = kernels.rope(q, self.rotation, self.query_scale, offset=position)
        k = kernels.rope(k, self.rotation, offset=position)
        dtype = kernels.cache_dtype(self.k_proj.dtype)
        ring = cache.returns_ring(k.shape[2])
        if cache.kv_bits == 16:
            k, v = k.astype(dtype), v.astype(dtype)
        k, v = cache.update_and_fetch(k, v)  # [B, Hkv, T, Dh]
        scale = self.head_dim**-0.5
        return kernels.attention(
            q, k, v, scale=scale, window=cache.window, position=position, ring=ring, sinks=cache.sinks
        )

    def _split(self, x: mx.array, n_heads: int) -> mx.array:
        return x.reshape(*x.shape[:2], n_heads, self.head_dim).transpose(0, 2, 1, 3)  # [B, S, H*Dh] -> [B, H, S, Dh]


class TransformerBlock(nn.Module):
    """A block, or where processes share it, the heads and hidden units that one of them has."""

    def __init__(self, args: ModelArgs, rank: int | None = None) -> None:
        """Make a block of the sizes in `args`; `rank` is that of this process among those that share the block."""
        super().__init__()
        self.rank = rank
        self._ready: kernels.ReadyBlock | None = None
        self._leaves = [module.path.split(".") for module in blocks.block(args.n_experts)]
        self._n_used = args.n_experts_per_token
        self.self_attn = Attention(args)
        if args.n_experts:
            self.block_sparse_moe = Mixture(args)
        else:
            self.mlp = FeedForward(args)
        self.self_attn.rank = self._feed_forward.rank = rank
        self.input_layernorm = RMSNorm(args.dim, args.norm_eps)
        self.post_attention_layernorm = RMSNorm(args.dim, args.norm_eps)

    def __call__(self, x: mx.array, cache: RollingBufferCache) -> mx.array:
        """Return ``[B, S, D]`` after the block, for S new tokens that continue `cache`."""
        return self._at_once(x, cache) if kernels.uses_native() else self.in_steps(x, cache)

    def in_steps(self, x: mx.array, cache: RollingBufferCache) -> mx.array:
        """Return the same by attention and feed-forward, one after the other."""
        x = self.self_attn(x, self.input_layernorm, cache)
        return self._feed_forward(x, self.post_attention_layernorm)

    def observed(self, x: mx.array, cache: RollingBufferCache, observe: Observe) -> mx.array:
        """Return the same product by product; `observe` sees the inputs of the matrices in the order of the table."""
        attention = self.self_attn
        before, after, *_ = blocks.inputs(n_experts=0)
        h = self.input_layernorm(x)
        observe(before, h)
        q, k, v = kernels.products(h, [attention.q_proj.parts, attention.k_proj.parts, attention.v_proj.parts])
        h = attention.attend(q, k, v, cache)
        observe(after, h)
        x = kernels.add_product(x, h, attention.o_proj.parts)
        return self._feed_forward.observed(x, self.post_attention_layernorm, observe)

    @property
    def _feed_forward(self) -> FeedForward | Mixture:
        found: FeedForward | Mixture = self["mlp"] if "mlp" in self else self["block_sparse_moe"]
        return found

    def _at_once(self, x: mx.array, cache: RollingBufferCache) -> mx.array:
        """Return the same in one step of the native kernels."""
        assert self.rank is None, "an operation of MLX cannot wait for a sum over ranks, which is another one"
        attention, n_new = self["self_attn"], x.shape[1]
        shape = (x.shape[0], attention.n_kv_heads, attention.head_dim)
        keys, values = cache.reserve(n_new, shape, kernels.cache_dtype(attention["k_proj"].dtype))
        x, keys, values = kernels.run_block(x, keys, values, self.ready(), position=cache.offset, layout=cache.layout)
        cache.put(keys, values, n_new)
        return x

    def leaves(self) -> list[nn.Module]:
        """Return the layers that hold arrays: the matrices, then the norms."""
        # By items: attributes take ten times as long, 300 times a token.
        return [reduce(getitem, path, self) for path in self._leaves]

    def ready(self) -> kernels.ReadyBlock:
        """Return the block as the native kernels take it, made anew if one of its arrays was replaced."""
        leaves = self.leaves()
        arrays = [array for leaf in leaves for array in leaf.values()]
        if self._ready is None or not self._ready.holds(arrays):
            attention, n = self["self_attn"], len(leaves) - len(blocks.NORMS)
            weights, norms = [leaf.parts for leaf in leaves[:n]], [leaf.parts for leaf in leaves[n:]]
            self._ready = kernels.ReadyBlock(
                weights,
                norms,
                attention["rotation"],
                attention.query_scale,
                attention.head_dim**-0.5,
                attention.n_kv_heads,
                n_used=self._n_used,
                rank=self.rank,
                copy=copies_fit(weights),
            )
        return self._ready

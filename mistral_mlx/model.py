"""The forward pass of Mistral (Jiang et al., 2023): token ids in, logits out; knows nothing of text, files or sampling.

Module and weight names are those of HF transformers, so that folders interchange with mlx-lm. Letters in shapes:
B batch, S new tokens, T keys, H and Hkv heads, Dh head_dim, D dim, V vocabulary.
"""

import mlx.core as mx
import mlx.nn as nn

from . import kernels
from .args import ModelArgs
from .cache import RollingBufferCache, make_cache
from .layers import Embedding, Linear, RMSNorm


class Attention(nn.Module):
    """Grouped-query attention (Ainslie et al., 2023) with rotary positions (Su et al., 2021; halves, not pairs)."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = args.n_heads, args.n_kv_heads, args.head_dim
        self.rope_theta = args.rope_theta
        self.q_proj = Linear(args.dim, args.n_heads * args.head_dim)
        self.k_proj = Linear(args.dim, args.n_kv_heads * args.head_dim)
        self.v_proj = Linear(args.dim, args.n_kv_heads * args.head_dim)
        self.o_proj = Linear(args.n_heads * args.head_dim, args.dim)

    def __call__(self, x: mx.array, cache: RollingBufferCache) -> mx.array:
        q = self._rotate(self._split(self.q_proj(x), self.n_heads), cache.offset)
        k = self._rotate(self._split(self.k_proj(x), self.n_kv_heads), cache.offset)
        k, v = cache.update_and_fetch(k, self._split(self.v_proj(x), self.n_kv_heads))  # [B, Hkv, T, Dh]
        h = kernels.attention(q, k, v, scale=self.head_dim**-0.5, window=cache.window)
        return self.o_proj(h.transpose(0, 2, 1, 3).flatten(2))  # [B, H, S, Dh] -> [B, S, H*Dh]

    def _split(self, x: mx.array, n_heads: int) -> mx.array:
        return x.reshape(*x.shape[:2], n_heads, self.head_dim).transpose(0, 2, 1, 3)  # [B, S, H*Dh] -> [B, H, S, Dh]

    def _rotate(self, x: mx.array, offset: int) -> mx.array:
        return kernels.rope(x, base=self.rope_theta, offset=offset)


class FeedForward(nn.Module):
    """SwiGLU (Shazeer, 2020)."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.gate_proj = Linear(args.dim, args.hidden_dim)
        self.up_proj = Linear(args.dim, args.hidden_dim)
        self.down_proj = Linear(args.hidden_dim, args.dim)

    def __call__(self, x: mx.array) -> mx.array:
        return self.down_proj(kernels.silu_times(self.gate_proj(x), self.up_proj(x)))


class TransformerBlock(nn.Module):
    """Attention and feed-forward, each normalized before and added to the residual stream after."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.self_attn = Attention(args)
        self.mlp = FeedForward(args)
        self.input_layernorm = RMSNorm(args.dim, args.norm_eps)
        self.post_attention_layernorm = RMSNorm(args.dim, args.norm_eps)

    def __call__(self, x: mx.array, cache: RollingBufferCache) -> mx.array:
        x = x + self.self_attn(self.input_layernorm(x), cache)
        return x + self.mlp(self.post_attention_layernorm(x))


class Decoder(nn.Module):
    """Embedding, blocks and final norm: the ``model.`` part of the weight names."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.embed_tokens = Embedding(args.vocab_size, args.dim)
        self.layers = [TransformerBlock(args) for _ in range(args.n_layers)]
        self.norm = RMSNorm(args.dim, args.norm_eps)

    def __call__(self, ids: mx.array, cache: list[RollingBufferCache]) -> mx.array:
        x = self.embed_tokens(ids)  # [B, S, D]
        for block, layer_cache in zip(self.layers, cache, strict=True):
            x = block(x, layer_cache)
        return self.norm(x)


class Mistral(nn.Module):
    """A decoder with its output head, which is the embedding itself if `tied`."""

    def __init__(self, args: ModelArgs, *, tied: bool) -> None:
        super().__init__()
        self.args = args
        self.model = Decoder(args)
        if not tied:
            self.lm_head = Linear(args.dim, args.vocab_size)

    def __call__(self, ids: mx.array, cache: list[RollingBufferCache] | None = None) -> mx.array:
        """Return float32 logits ``[B, S, V]`` of every position of ``[B, S]`` token ids.

        The ids continue what `cache` holds, and are added to it; without one they start at position 0.
        """
        return self.logits(self.hidden(ids, make_cache(self.args) if cache is None else cache))

    def hidden(self, ids: mx.array, cache: list[RollingBufferCache]) -> mx.array:
        """Return the last hidden states ``[B, S, D]`` of ``[B, S]`` token ids that continue `cache`."""
        return self.model(ids, cache)

    def logits(self, hidden: mx.array) -> mx.array:
        """Return the float32 logits ``[..., V]`` of hidden states ``[..., D]``."""
        head = self.lm_head if "lm_head" in self else self.model.embed_tokens.as_linear
        return head(hidden).astype(mx.float32)

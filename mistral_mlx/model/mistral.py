"""The forward pass of Mistral (Jiang et al., 2023): token ids in, logits out; knows nothing of text, files or sampling.

Module and weight names are those of HF transformers, so that folders interchange with mlx-lm. Letters in shapes:
B batch, S new tokens, T keys, H and Hkv heads, Dh head_dim, D dim, V vocabulary.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import accumulate
from operator import getitem

import mlx.core as mx
import mlx.nn as nn

from mistral_mlx import kernels
from mistral_mlx.kernels.memory import copies_fit

from . import blocks
from .args import ModelArgs
from .cache import RollingBufferCache, make_cache
from .feed_forward import FeedForward, Mixture, Observe
from .layers import Embedding, Linear, RMSNorm
from .rope import rotation

FEW_TOKENS = 16  # that go through all blocks at once; more are heard between blocks


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

    def __call__(self, x: mx.array, norm: RMSNorm, cache: RollingBufferCache) -> mx.array:
        """Return ``x`` plus the attention of ``norm(x)``, ``[B, S, D]``."""
        projections = [self.q_proj.parts, self.k_proj.parts, self.v_proj.parts]
        q, k, v = kernels.products(x, projections, norm.parts)
        h = self.attend(q, k, v, cache)
        return kernels.add_product(x, h, self.o_proj.parts)

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
    """Attention and feed-forward, each normalized before and added to the residual stream after."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self._ready: kernels.ReadyBlock | None = None
        self._leaves = [module.path.split(".") for module in blocks.block(args.n_experts)]
        self._n_used = args.n_experts_per_token
        self.self_attn = Attention(args)
        if args.n_experts:
            self.block_sparse_moe = Mixture(args)
        else:
            self.mlp = FeedForward(args)
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
                copy=copies_fit(weights),
            )
        return self._ready


class Decoder(nn.Module):
    """Embedding, blocks and final norm: the ``model.`` part of the weight names."""

    def __init__(self, args: ModelArgs) -> None:
        super().__init__()
        self.embed_tokens = Embedding(args.vocab_size, args.dim)
        self.layers = [TransformerBlock(args) for _ in range(args.n_layers)]
        self.norm = RMSNorm(args.dim, args.norm_eps)

    def __call__(
        self, ids: mx.array, cache: list[RollingBufferCache], on_block: Callable[[int], None] | None = None
    ) -> mx.array:
        x = self.embed_tokens(ids)  # [B, S, D]
        for n_done, (block, layer_cache) in enumerate(zip(self.layers, cache, strict=True)):
            if on_block is not None and n_done > 0 and kernels.on_cpu():
                mx.eval(x)  # one block at a time: signals are heard between them
                on_block(n_done)
            x = block(x, layer_cache)
        return self.norm(x)


class Mistral(nn.Module):
    """A decoder with its output head, which is the embedding itself if `tied`."""

    def __init__(self, args: ModelArgs, *, tied: bool) -> None:
        super().__init__()
        self.args = args
        self._ready: kernels.ReadyModel | None = None
        self._cache_dtypes = list[mx.Dtype]()  # of the blocks, as long as the model is ready
        self.model = Decoder(args)
        if not tied:
            self.lm_head = Linear(args.dim, args.vocab_size)

    def __call__(self, ids: mx.array, cache: list[RollingBufferCache] | None = None) -> mx.array:
        """Return float32 logits ``[B, S, V]`` of every position of ``[B, S]`` token ids.

        The ids continue what `cache` holds, and are added to it; without one they start at position 0.
        """
        cache = make_cache(self.args) if cache is None else cache
        if self._can_run_at_once(ids, cache):
            return self._at_once(ids, [cache], [ids.shape[1]], head=True)
        return self.logits(self.hidden(ids, cache))

    def together(self, texts: Sequence[tuple[Sequence[int], list[RollingBufferCache]]]) -> list[mx.array]:
        """Return the float32 logits ``[S, V]`` of each text's new token ids, which continue its own cache.

        The native kernels read the weights once for all of them, and give each the bits that it would get alone.
        """
        if not kernels.uses_native() or not all(_is_even(cache) for _, cache in texts):
            return [self(mx.array([ids]), cache)[0] for ids, cache in texts]
        counts = [len(ids) for ids, _ in texts]
        ids = mx.array([token for ids, _ in texts for token in ids])
        logits = self._at_once(ids[None], [cache for _, cache in texts], counts, head=True)[0]
        ends = list(accumulate(counts))
        return [logits[end - n : end] for n, end in zip(counts, ends, strict=True)]

    def hidden(
        self, ids: mx.array, cache: list[RollingBufferCache], on_block: Callable[[int], None] | None = None
    ) -> mx.array:
        """Return the last hidden states ``[B, S, D]`` of ``[B, S]`` token ids that continue `cache`.

        On a CPU `on_block` is called with the number of blocks done, after each but the last.
        """
        if on_block is None and self._can_run_at_once(ids, cache):
            return self._at_once(ids, [cache], [ids.shape[1]], head=False)
        return self.model(ids, cache, on_block)

    def logits(self, hidden: mx.array) -> mx.array:
        """Return the float32 logits ``[..., V]`` of hidden states ``[..., D]``."""
        return kernels.products(hidden, [self._head().parts])[0].astype(mx.float32)

    def _can_run_at_once(self, ids: mx.array, cache: list[RollingBufferCache]) -> bool:
        return ids.size <= FEW_TOKENS and _is_even(cache) and kernels.uses_native()

    def _at_once(
        self, ids: mx.array, caches: list[list[RollingBufferCache]], counts: list[int], *, head: bool
    ) -> mx.array:
        """Return the logits or the last hidden states in one step of the native kernels, the same bits.

        The ids ``[B, S]`` are the new ones of each text, `counts` of them, one text after the other.
        """
        x = self.model.embed_tokens(ids)
        ready, texts = self._made_ready(), list[kernels.Text]()
        first = self.model.layers[0].self_attn
        shape = (x.shape[0], first.n_kv_heads, first.head_dim)
        for cache, n in zip(caches, counts, strict=True):
            buffers = [layer.reserve(n, shape, dtype) for layer, dtype in zip(cache, self._cache_dtypes, strict=True)]
            keys, values = [keys for keys, _ in buffers], [values for _, values in buffers]
            texts.append(kernels.Text(keys, values, cache[0].offset, n))
        y = ready.run(x, texts, layouts=[layer.layout for layer in caches[0]], head=head)
        for cache, text in zip(caches, texts, strict=True):
            for layer, layer_keys, layer_values in zip(cache, text.keys, text.values, strict=True):
                layer.put(layer_keys, layer_values, text.n_tokens)
        return y

    def _made_ready(self) -> kernels.ReadyModel:
        """Return the model for the native kernels, made anew if one of its arrays was replaced."""
        layers, norm, head = self.model["layers"], self.model["norm"], self._head()
        leaves = [leaf for block in layers for leaf in block.leaves()]
        arrays = [array for leaf in (*leaves, norm, head) for array in leaf.values()]
        if self._ready is None or not self._ready.holds(arrays):
            blocks, copy = [block.ready() for block in layers], copies_fit([head.parts])
            self._ready = kernels.ReadyModel(blocks, norm.parts, head.parts, copy=copy)
            self._cache_dtypes = [kernels.cache_dtype(block["self_attn"]["k_proj"].dtype) for block in layers]
        return self._ready

    def _head(self) -> Linear | Embedding:
        head: Linear | Embedding = self["lm_head"] if "lm_head" in self else self.model["embed_tokens"]
        return head


def _is_even(cache: list[RollingBufferCache]) -> bool:
    """Whether all layers hold the same number of tokens."""
    return all(layer.offset == cache[0].offset for layer in cache)

"""The forward pass of Mistral (Jiang et al., 2023): token ids in, logits out; knows nothing of text, files or sampling.

Module and weight names are those of HF transformers, so that folders interchange with mlx-lm. Letters in shapes:
B batch, S new tokens, T keys, H and Hkv heads, Dh head_dim, D dim, V vocabulary.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate

import mlx.core as mx
import mlx.nn as nn

from mistral_mlx import kernels

from .args import ModelArgs
from .at_once import AtOnce
from .block import TransformerBlock
from .cache import RollingBufferCache, make_cache
from .layers import Embedding, Linear, RMSNorm

FEW_TOKENS = 16  # that go through all blocks at once; more are heard between blocks


class Decoder(nn.Module):
    """Embedding, blocks and final norm: the ``model.`` part of the weight names."""

    def __init__(self, args: ModelArgs, rank: int | None = None) -> None:
        super().__init__()
        self.embed_tokens = Embedding(args.vocab_size, args.dim)
        self.layers = [TransformerBlock(args, rank) for _ in range(args.n_layers)]
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

    is_whole = True  # or other processes have parts of it, and of its caches
    fingerprint: str | None = None  # of the whole model, where it is known without one

    def __init__(self, args: ModelArgs, *, tied: bool, rank: int | None = None) -> None:
        """Make a model of the sizes in `args`; `rank` is that of this process where others share its blocks."""
        super().__init__()
        self.args = args
        self._ready: AtOnce | None = None
        self.model = Decoder(args, rank)
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
        norm, own_head = self.model["norm"], self._head()
        if self._ready is None or not self._ready.ends_with(norm, own_head):
            self._ready = AtOnce(self.model["layers"], norm, own_head)
        return self._ready.run(self.model.embed_tokens(ids), caches, counts, head=head)

    def _head(self) -> Linear | Embedding:
        head: Linear | Embedding = self["lm_head"] if "lm_head" in self else self.model["embed_tokens"]
        return head


def _is_even(cache: list[RollingBufferCache]) -> bool:
    """Whether all layers hold the same number of tokens."""
    return all(layer.offset == cache[0].offset for layer in cache)

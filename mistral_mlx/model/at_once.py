"""New tokens of several texts through many blocks in one call of the native kernels, which read the weights once."""

from collections.abc import Sequence

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.kernels.memory import copies_fit

from .block import TransformerBlock
from .cache import RollingBufferCache
from .layers import Embedding, Linear, RMSNorm


class AtOnce:
    """The blocks of a model with its last norm and its head; or without these two, blocks that are a part of one."""

    def __init__(
        self,
        blocks: Sequence[TransformerBlock],
        norm: RMSNorm | None = None,
        head: Linear | Embedding | None = None,
    ) -> None:
        self._blocks, self._norm, self._head = blocks, norm, head
        self._ready: kernels.ReadyModel | None = None
        self._cache_dtypes = list[mx.Dtype]()  # of the blocks, as long as they are ready

    def ends_with(self, norm: RMSNorm, head: Linear | Embedding) -> bool:
        """Whether these are its norm and its head."""
        return self._norm is norm and self._head is head

    def run(
        self, x: mx.array, caches: Sequence[list[RollingBufferCache]], counts: Sequence[int], *, head: bool = False
    ) -> mx.array:
        """Return ``[B, S, D]`` after the blocks and the norm, or with `head` the logits ``[B, S, V]``.

        The S rows of x are the new tokens of each text, `counts` of them, one text after the other; all blocks of a
        text's cache hold the same number of tokens. It is done when it returns.
        """
        ready, texts = self._made_ready(), list[kernels.Text]()
        first = self._blocks[0].self_attn
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
        """Return all for the native kernels, made anew if one of the arrays was replaced."""
        ends = [layer for layer in (self._norm, self._head) if layer is not None]
        leaves = [leaf for block in self._blocks for leaf in block.leaves()]
        arrays = [array for leaf in (*leaves, *ends) for array in leaf.values()]
        if self._ready is None or not self._ready.holds(arrays):
            blocks = [block.ready() for block in self._blocks]
            norm = None if self._norm is None else self._norm.parts
            head = None if self._head is None else self._head.parts
            self._ready = kernels.ReadyModel(blocks, norm, head, copy=head is not None and copies_fit([head]))
            self._cache_dtypes = [kernels.cache_dtype(block["self_attn"]["k_proj"].dtype) for block in self._blocks]
        return self._ready

"""The blocks that a process has, and how all processes take a text through all blocks together.

Either all have a share of every block, and sum what they add to the residual stream twice a block; or each has some of
the blocks, and hands the result to the next. Every method here is called on all ranks, at the same time.
Letters in shapes: S new tokens, D dim.
"""

from collections.abc import Callable, Sequence

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.model.at_once import AtOnce
from mistral_mlx.model.block import TransformerBlock
from mistral_mlx.model.cache import RollingBufferCache

from .group import Group
from .share import Share

Told = Callable[[int], bool]  # is told how many blocks are done, and says whether to stop


class Part:
    """The blocks of a share, for the processes of a group."""

    def __init__(self, group: Group, share: Share, blocks: Sequence[TransformerBlock]) -> None:
        self.group, self.share, self._blocks = group, share, blocks
        self._all = AtOnce(blocks)
        self._each = [AtOnce([block]) for block in blocks]
        self._dtype = kernels.activation_dtype(blocks[0].self_attn.k_proj.dtype)

    def at_once(
        self, x: mx.array | None, caches: Sequence[list[RollingBufferCache]], counts: Sequence[int]
    ) -> mx.array | None:
        """Return on rank 0 its ``[1, S, D]`` after all blocks; the others give and get None.

        The rows are the new tokens of each text, `counts` of them, one text after the other. The caches are those of
        the own blocks.
        """
        x = self._begin(x, sum(counts))
        if not self.share.splits_blocks and not self.group.leads:
            x = self._receive(sum(counts))
        assert x is not None
        if kernels.uses_native():
            with self.group.reporting():
                x = self._all.run(x, caches, counts)
        else:
            x = self._in_turn(x, caches, counts)
        if not self.share.splits_blocks:
            self._send(x)
            x = self._receive(sum(counts)) if self.group.leads else None
        return x if self.group.leads else None

    def by_block(
        self, x: mx.array | None, cache: list[RollingBufferCache], n: int, told: Told | None = None
    ) -> mx.array | None:
        """Return the same for `n` tokens of one text, block by block; on rank 0 `told` may stop it between two.

        Then the result is None, and the cache of the blocks that are done holds the tokens.
        """
        own, splits = self.share.layers, self.share.splits_blocks
        x = self._begin(x, n)
        for i in range(self.share.whole.n_layers):
            if i > 0 and self.group.any(told is not None and told(i)):
                return None
            if not splits and i == own.stop:
                self._send(x)
            if not splits and i == own.start > 0:
                x = self._receive(n)
            if i in own:
                assert x is not None
                x = self._block(i - own.start, x, cache, n)
        if not splits:
            if own.stop == self.share.whole.n_layers:
                self._send(x)
            x = self._receive(n) if self.group.leads else None
        return x if self.group.leads else None

    def _begin(self, x: mx.array | None, n: int) -> mx.array | None:
        """Return what rank 0 begins with on every rank that needs it."""
        if self.share.splits_blocks:
            own = None if x is None else x.astype(self._dtype)
            return self.group.from_first(own, (1, n, self.share.whole.dim), self._dtype)
        return x

    def _block(self, i: int, x: mx.array, cache: list[RollingBufferCache], n: int) -> mx.array:
        if kernels.uses_native():
            with self.group.reporting():
                return self._each[i].run(x, [cache[i : i + 1]], [n])
        return self._in_turn(x, [cache[i : i + 1]], [n], [self._blocks[i]])

    def _in_turn(
        self,
        x: mx.array,
        caches: Sequence[list[RollingBufferCache]],
        counts: Sequence[int],
        blocks: Sequence[TransformerBlock] | None = None,
    ) -> mx.array:
        """Return the same by the operations of MLX, one text after the other.

        Each is computed before the next begins: in one graph MLX could take their sums in another order on each rank.
        """
        parts, start = list[mx.array](), 0
        for cache, n in zip(caches, counts, strict=True):
            h, start = x[:, start : start + n], start + n
            for block, layer in zip(self._blocks if blocks is None else blocks, cache, strict=True):
                h = block(h, layer)
            with self.group.reporting():
                mx.eval(h, [array for layer in cache for array in (layer.keys, layer.values)])
            parts.append(h)
        return parts[0] if len(parts) == 1 else mx.concatenate(parts, axis=1)

    def _send(self, x: mx.array | None) -> None:
        assert x is not None
        self.group.send(x.astype(self._dtype))

    def _receive(self, n: int) -> mx.array:
        return self.group.receive((1, n, self.share.whole.dim), self._dtype)

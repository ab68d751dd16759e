"""Blocks and models made ready for the native kernels: checked once, and copied as the kernels read them fastest.

The kernels read weights from their file too, but more slowly: a copy lies in large pages, and in the order in which it
is read. `memory.copies_fit` says whether there is room for one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from . import native
from .weights import Norm, QueryScale, Rotation, Weight


class Layout(NamedTuple):
    """Where a block keeps the key of position p: in row ``sinks + p % slots``, or p without a window (all are 0 then).

    The first `sinks` positions are in rows 0, 1, ... too.
    """

    window: int
    slots: int
    sinks: int


class ReadyBlock:
    """A transformer block made ready: the weights of q, k, v, o, gate, up and down, the norms before q and gate.

    Of a mixture of experts it is q, k, v, o, the router, and gate, up and down of all experts, ``[E, N, K]`` each.
    """

    def __init__(
        self,
        weights: Sequence[Weight],
        norms: Sequence[Norm],
        rotation: Rotation,
        query_scale: QueryScale | None,
        scale: float,
        n_kv_heads: int,
        *,
        n_used: int = 0,
        rank: int | None = None,
        copy: bool,
    ) -> None:
        """Make ready, with a copy of the weights or without one; `scale` is that of the scores.

        A token uses `n_used` experts of a mixture; 0: there is no mixture. Where processes share the block, `rank` is
        that of this one, and to run the block sums what each of them adds to the residual stream.
        """
        self.native = native.ext.ReadyBlock(
            weights, norms, rotation, query_scale, scale, n_kv_heads, n_used, rank, copy
        )

    def holds(self, arrays: list[mx.array]) -> bool:
        """Whether it was made of these arrays: the weights with scales and biases, then the norms."""
        return self.native.holds(arrays)


def run_block(
    x: mx.array,
    keys: mx.array,
    values: mx.array,
    block: ReadyBlock,
    *,
    position: int,
    layout: Layout,
) -> tuple[mx.array, mx.array, mx.array]:
    """Return ``[B, S, D]`` after a transformer block, and the new keys and values; of the native kernels alone.

    The first token has the position `position`. Keys and values are stored in the ``[B, Hkv, rows, Dh]`` buffers, or as
    codes of 8 bits in int8 ``[B, Hkv, rows, Dh + 4]``.
    """
    return block.native.run(x, keys, values, position=position, layout=layout)


class Text(NamedTuple):
    """New tokens of a text that go on from the keys and values of each block, as `run_block` takes them."""

    keys: list[mx.array]
    values: list[mx.array]
    position: int  # of the first new token
    n_tokens: int


class ReadyModel:
    """All blocks of a model with its last norm and its head, made ready for the native kernels; or blocks alone."""

    def __init__(self, blocks: Sequence[ReadyBlock], norm: Norm | None, head: Weight | None, *, copy: bool) -> None:
        """Make ready, with a copy of the head or without one. Norm and head are both None of a part of a model."""
        self._model = native.ext.ReadyModel([block.native for block in blocks], norm, head, copy)

    def holds(self, arrays: list[mx.array]) -> bool:
        """Whether it was made of these arrays: of each block its weights with scales and biases, then its norms."""
        return self._model.holds(arrays)

    def run(self, x: mx.array, texts: Sequence[Text], *, layouts: Sequence[Layout], head: bool) -> mx.array:
        """Return the logits ``[B, S, V]`` of ``[B, S, D]``, or without `head` ``[B, S, D]``, at once and not lazily.

        The result of blocks alone is not normalized.

        It is `run_block` for each block. Several texts, each of batch 1, share a pass: the S rows are the tokens of the
        first text, then those of the second, and so on. New keys and values are written into the arrays of the texts,
        which become copies first where somebody else holds them. There is a layout for each block.
        """
        return self._model.run(x, texts, layouts=layouts, head=head)

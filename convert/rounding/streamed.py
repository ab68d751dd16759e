"""The forward pass of a source with one transformer block in memory at a time; packs nothing.

All windows go through a block before the next one is read: held are its weights as plain ones in the dtype they unpack
to, and the hidden states of all windows, float32 ``[1, S, D]`` each. Letters in shapes as in the model.
"""

from collections.abc import Callable, Iterator, Sequence

import mlx.core as mx
import numpy as np

from mistral_mlx import kernels
from mistral_mlx.convert.sources.source import Source, SourceTensor
from mistral_mlx.convert.sources.weights import HEAD
from mistral_mlx.measure.evaluation import Logits, Window
from mistral_mlx.model import blocks
from mistral_mlx.model.block import TransformerBlock
from mistral_mlx.model.cache import make_cache
from mistral_mlx.model.feed_forward import Observe
from mistral_mlx.model.layers import RMSNorm

EMBEDDING = f"{blocks.EMBEDDING}.weight"

States = list[mx.array]  # of every window
Change = Callable[[str, mx.array], mx.array]  # (name of a weight, the weight) to the weight that is used


class Streamed:
    """A source as a model that is run block by block."""

    def __init__(self, source: Source) -> None:
        self.args = source.args
        self.tensors = source.tensors
        self.head = source.tensors.get(HEAD, source.tensors[EMBEDDING])

    def embed(self, windows: Sequence[Window], change: Change | None = None) -> States:
        """Return the embedded ids of every window, but for the last id, behind which nothing is predicted."""
        rows = np.concatenate([np.array(window.ids[:-1]) for window in windows])
        out = np.empty((len(rows), self.args.dim), np.float32)
        for start, weight in _weights(self.tensors[EMBEDDING]):
            weight = weight if change is None else change(EMBEDDING, weight)
            here = np.flatnonzero((rows >= start) & (rows < start + weight.shape[0]))
            out[here] = np.asarray(weight.astype(mx.float32))[rows[here] - start]
        ends = np.cumsum([len(window.ids) - 1 for window in windows])
        return [mx.array(part)[None] for part in np.split(out, ends[:-1])]

    def block(self, layer: int, change: Change | None = None) -> TransformerBlock:
        """Return the transformer block `layer` with its weights, `change` having been applied to the matrices."""
        block = TransformerBlock(self.args)
        prefix, loaded = f"model.layers.{layer}.", []
        for module in blocks.block(self.args.n_experts):
            name = f"{module.path}.weight"
            weight = whole(self.tensors[prefix + name])
            weight = change(prefix + name, weight) if change and weight.ndim > 1 else weight
            loaded.append((name, weight))
        block.load_weights(loaded)
        return block

    def run(self, layer: int, block: TransformerBlock, states: States, observe: Observe | None = None) -> States:
        """Return the states behind `block`, of every window evaluated; `observe` sees the inputs of its products."""
        after = []
        for x in states:
            after.append(self._run(layer, block, x, observe))
            mx.eval(after[-1])
        return after

    def _run(self, layer: int, block: TransformerBlock, x: mx.array, observe: Observe | None) -> mx.array:
        cache = make_cache(self.args)[layer]
        return block(x, cache) if observe is None else block.observed(x, cache, observe)

    def norm(self) -> RMSNorm:
        """Return the norm before the head."""
        norm = RMSNorm(self.args.dim, self.args.norm_eps)
        norm.load_weights([("weight", whole(self.tensors["model.norm.weight"]))])
        return norm

    def logits(self, hidden: mx.array, change: Change | None = None) -> mx.array:
        """Return float32 logits ``[n, V]`` of normalized states ``[n, D]``; the head is read in blocks of rows."""
        name = self.head.name
        parts = []
        for _, weight in _weights(self.head):
            weight = weight if change is None else change(name, weight)
            parts.append(kernels.products(hidden, [kernels.Weight(weight)])[0].astype(mx.float32))
            mx.eval(parts[-1])  # the rows can go
        return mx.concatenate(parts, axis=-1)


def source_logits(
    source: Source, windows: Sequence[Window], progress: Callable[[int, int], None] | None = None
) -> Logits:
    """Run all `windows` through `source`, and return what gives their logits, as `evaluation.evaluate` asks for them.

    `progress` is called with the blocks done and those there are. What is kept are the states of scored positions.
    """
    model = Streamed(source)
    states = model.embed(windows)
    for layer in range(model.args.n_layers):
        states = model.run(layer, model.block(layer), states)
        if progress is not None:
            progress(layer + 1, model.args.n_layers)
    norm = model.norm()
    hidden = {window: norm(x[0, window.first :]) for window, x in zip(windows, states, strict=True)}
    mx.eval(*hidden.values())

    def logits(window: Window) -> Iterator[mx.array]:
        yield model.logits(hidden[window])

    return logits


def whole(tensor: SourceTensor) -> mx.array:
    """Return all plain weights of `tensor`, in its shape."""
    found = mx.concatenate([weight for _, weight in _weights(tensor)]).reshape(tensor.shape)
    mx.eval(found)  # the parts can go: of a mixture, those of a whole block take gigabytes
    return found


def _weights(tensor: SourceTensor) -> Iterator[tuple[int, mx.array]]:
    """Yield plain weights in blocks of rows, with the number of the first row."""
    start = 0
    for rows in tensor.blocks():
        weight = rows.weights().array()
        yield start, weight
        start += weight.shape[0]

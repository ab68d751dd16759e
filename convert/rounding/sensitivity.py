"""How much each weight of a source matters: what it costs the predictions when some are packed coarsely.

All weights of one kind (every v_proj) are packed at a time, and all of one block; what a weight costs is taken to be
what its kind costs, shared out over the blocks as these cost. So there are as many passes as kinds, and half as many as
blocks: each begins where its weights are.
"""

from collections.abc import Sequence
from functools import reduce
from operator import getitem

import mlx.core as mx
import numpy as np

from mistral_mlx import kernels
from mistral_mlx.convert.sources.source import Source
from mistral_mlx.kernels.fallback.packing import decode, host
from mistral_mlx.measure.evaluation import Window
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.blocks import ROUTER, matrices
from mistral_mlx.model.packing import Packing

from .inputs import BlocksDone, Floats
from .streamed import EMBEDDING, Change, States, Streamed

PROBE = Packing(4, 32)  # every group size that a weight may have is a multiple of it
N_WINDOWS = 2
# In hundredths of a nat and rounded, what PROBE costs SmolLM2-135M and stories15M on WikiText-2, all blocks together:
# query, key, value, output, gate, up and down. Both have one table for embedding and head; that it counts for both in
# other models is a guess, as is that all experts together cost what one feed-forward does.
USUAL = (1, 1.5, 10, 4, 4, 6, 8)
USUAL_ENDS = {"model.embed_tokens": 15.0, "lm_head": 15.0}


def kinds(args: ModelArgs) -> tuple[str, ...]:
    """Return the paths, below a block, of the matrices that may be packed: all but a router."""
    return tuple(module.path for module in matrices(args.n_experts) if module.path != ROUTER)


def usual_sensitivities(args: ModelArgs) -> dict[str, float]:
    """Return what is usual, for want of a text: the same in every block."""
    usual = dict(zip(kinds(args), USUAL, strict=True))
    found = {f"model.layers.{i}.{kind}": usual[kind] / args.n_layers for i in range(args.n_layers) for kind in usual}
    return found | USUAL_ENDS


def sensitivities(source: Source, texts: Sequence[Window], progress: BlocksDone) -> dict[str, float]:
    """Return the KL divergence, in nats, that packing each matrix like PROBE costs, by its module's path."""
    model = Streamed(source)
    base = model.embed(texts[:N_WINDOWS])
    n_layers, embedding, each = model.args.n_layers, model.tensors[EMBEDDING], kinds(model.args)
    trials: dict[str, States] = {embedding.path: model.embed(texts[:N_WINDOWS], _probe)}
    for layer in range(n_layers):
        block, probed = model.block(layer), model.block(layer, _probe)
        for name in trials:
            if name not in each:
                trials[name] = model.run(layer, block, trials[name])
        trials[f"model.layers.{layer}"] = model.run(layer, probed, base)
        for kind in each:
            *way, leaf = kind.split(".")
            parent, other = reduce(getitem, way, block), reduce(getitem, way, probed)
            exact, parent[leaf] = parent[leaf], other[leaf]
            trials[kind] = model.run(layer, block, trials.get(kind, base))
            parent[leaf] = exact
        base = model.run(layer, block, base)
        progress(layer + 1, n_layers)
    costs = _costs(model, base, trials, texts)
    of_layers = [costs[f"model.layers.{layer}"] for layer in range(n_layers)]
    shares = np.array(of_layers) / (sum(of_layers) or 1.0)
    found = {f"model.layers.{i}.{kind}": costs[kind] * float(shares[i]) for i in range(n_layers) for kind in each}
    return found | {path: costs[path] for path in (embedding.path, model.head.path)}


def _costs(model: Streamed, base: States, trials: dict[str, States], texts: Sequence[Window]) -> dict[str, float]:
    """Return the mean KL divergence of each trial from the predictions of `base`; one of the head is made here."""
    norm = model.norm()

    def log_probabilities(states: States, change: Change | None = None) -> Floats:
        hidden = mx.concatenate([norm(x[0, text.first :]) for text, x in zip(texts, states, strict=False)])
        logits = model.logits(hidden, change)
        return np.asarray(logits - mx.logsumexp(logits, axis=-1, keepdims=True))

    exact = log_probabilities(base)
    weights = np.exp(exact)

    def cost(states: States, change: Change | None = None) -> float:
        return max(float(np.mean(np.sum(weights * (exact - log_probabilities(states, change)), axis=-1))), 0.0)

    tied = model.head.path in trials
    costs = {
        name: cost(states, _probe if tied and name == model.head.path else None) for name, states in trials.items()
    }
    return costs if tied else costs | {model.head.path: cost(base, _probe)}


def _probe(name: str, weight: mx.array) -> mx.array:
    """Return the weight as it is after packing. A router, and a weight that cannot be packed, stay as they are."""
    bits, group_size, _ = PROBE
    if weight.shape[-1] % group_size or name.endswith(f"{ROUTER}.weight"):
        return weight
    if weight.ndim > 2:  # one expert after the other, in the dtype of the weight: all of them in float32 are large
        return mx.stack([_probe(name, matrix).astype(weight.dtype) for matrix in weight])
    exact = weight.astype(mx.float32)
    packed = kernels.quantize(host(exact), "F32", "F32", group_size=group_size, bits=bits)
    assert packed.biases is not None  # as in every affine packing
    scales, biases = decode(packed.scales, "F32"), decode(packed.biases, "F32")
    return mx.dequantize(mx.array(packed.weight.view("<u4")), scales, biases, group_size=group_size, bits=bits)

"""Mixtral: the mixture of experts against the reference, for all ways to cut a text into steps, and its symmetries."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_config, tiny_model
from helpers.native import SETS
from reference import forward

from mistral_mlx import kernels
from mistral_mlx.errors import ConfigError
from mistral_mlx.kernels import native
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache import make_cache
from mistral_mlx.model.known import remarks
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.model.packing import Packing

W, N = 8, 300  # a window, and tokens that cross two wraps of its ring of 128 slots
MIXTRAL = {"model_type": "mixtral", "num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None}
EXPERTS = "model.layers.{}.block_sparse_moe.switch_mlp.{}_proj.weight"
ROUTER = "model.layers.{}.block_sparse_moe.gate.weight"
NAMES = [EXPERTS.format(layer, name) for layer in (0, 1) for name in ("gate", "up", "down")]
ROUTERS = [ROUTER.format(layer) for layer in (0, 1)]

needs_native = pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")


def mixtral(**changes):
    return tiny_model(**MIXTRAL | changes)


def of_weights(weights, **changes):
    model = Mistral(ModelArgs.from_config(tiny_config(**MIXTRAL | changes)), tied=False)
    model.load_weights([(name, mx.array(value)) for name, value in weights.items()])
    return model


def packed(model, weights, bits, *, routers_alone=False):
    """Pack the routers and experts of `model`, or the routers alone, and return the weights that they become."""
    unpacked = {}
    for name in ROUTERS if routers_alone else (*NAMES, *ROUTERS):
        *path, leaf, _ = name.split(".")
        parent = model
        for part in path:
            parent = parent[int(part)] if part.isdigit() else parent[part]
        parts = mx.quantize(mx.array(weights[name]).astype(mx.float16), 32, bits)
        parent[leaf] = parent[leaf].quantized(Packing(bits, 32))
        parent[leaf].update(dict(zip(("weight", "scales", "biases"), parts, strict=True)))
        codes, scales, biases = parts[0], *(part.astype(mx.float32) for part in parts[1:])
        unpacked[name] = np.array(mx.dequantize(codes, scales, biases, 32, bits))
    return weights | unpacked


def random_ids(n=N):
    return np.random.default_rng(1).integers(0, 64, n)


def run(model, ids, step):
    cache = make_cache(model.args)
    parts = [model(mx.array(ids[None, i : i + step]), cache)[0] for i in range(0, len(ids), step)]
    return np.concatenate([np.array(part) for part in parts])


@pytest.mark.parametrize("step", [1, 7, 40, N])
@pytest.mark.parametrize("changes", [{}, {"sliding_window": W}, {"num_experts_per_tok": 1}, {"num_experts_per_tok": 5}])
@pytest.mark.usefixtures("_every_path")
def test_any_step_size_matches_the_reference(changes, step):
    model, weights = mixtral(**changes)
    ids = random_ids()
    np.testing.assert_allclose(run(model, ids, step), forward(model.args, weights, ids), atol=1e-3)


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("step", [1, 40])
@pytest.mark.usefixtures("_every_path")
def test_packed_experts_match_the_reference(bits, step):
    model, weights = mixtral()
    unpacked = packed(model, weights, bits)
    ids = random_ids(100)
    with kernels.exactly():
        np.testing.assert_allclose(run(model, ids, step), forward(model.args, unpacked, ids), atol=5e-3)


@needs_native
@pytest.mark.parametrize("bits", [0, 4])
def test_any_step_size_and_threads_give_the_same_bits(bits):
    model, weights = mixtral(sliding_window=W)
    if bits:
        packed(model, weights, bits)
    ids, before = random_ids(), native.ext.name()
    for name in SETS:
        native.ext.select(name)
        found = set()
        for step, threads in ((1, 1), (7, 3), (N, 2)):
            native.ext.set_threads(threads)
            found.add(run(model, ids, step).tobytes())
        assert len(found) == 1
    native.ext.set_threads(0)
    native.ext.select(before)


@needs_native
def test_the_router_is_not_rounded():
    """Among so many tokens some have two logits so close that a rounded router would choose the other expert."""
    model, weights = mixtral(num_local_experts=2, num_experts_per_tok=1)
    unpacked = packed(model, weights, 4, routers_alone=True)
    ids = random_ids()
    np.testing.assert_allclose(run(model, ids, 100), forward(model.args, unpacked, ids), atol=1e-3)


@pytest.mark.usefixtures("_every_path")
def test_the_order_of_the_experts_changes_nothing():
    model, weights = mixtral()
    order = [3, 0, 4, 1, 2]
    other = of_weights(weights | {name: weights[name][order] for name in (*NAMES, *ROUTERS)})
    ids = random_ids(100)
    np.testing.assert_allclose(run(other, ids, 100), run(model, ids, 100), atol=1e-4)


@pytest.mark.usefixtures("_every_path")
def test_experts_that_are_all_alike_are_the_dense_model():
    _, weights = mixtral()
    weights |= {name: np.repeat(weights[name][:1], 5, axis=0) for name in NAMES}
    dense, _ = tiny_model(sliding_window=None)
    names = {name: name.replace("block_sparse_moe.switch_mlp", "mlp") for name in weights if name not in ROUTERS}
    dense.load_weights(
        [(new, mx.array(weights[old][0] if old in NAMES else weights[old])) for old, new in names.items()]
    )
    ids = random_ids(100)
    np.testing.assert_allclose(run(of_weights(weights), ids, 100), run(dense, ids, 100), atol=1e-4)


@pytest.mark.usefixtures("_every_path")
def test_what_is_observed_is_the_input_of_each_expert():
    model, _ = mixtral()
    block, seen = model.model.layers[0], {}
    x = mx.array(np.random.default_rng(0).normal(size=(1, 40, 32)).astype(np.float32))
    result = block.observed(
        x, make_cache(model.args)[0], lambda paths, inputs: seen.update(dict.fromkeys(paths, inputs))
    )
    np.testing.assert_allclose(np.array(result), np.array(block(x, make_cache(model.args)[0])), atol=1e-4)
    place = "block_sparse_moe.switch_mlp."
    assert sum(seen[f"{place}up_proj.{e}"].shape[0] for e in range(5)) == 40 * 2
    for e in range(5):
        gate, up, _ = (weight.expert(e) for weight in block.block_sparse_moe.switch_mlp.parts)
        gated = kernels.swiglu(seen[f"{place}gate_proj.{e}"], gate, up)
        np.testing.assert_allclose(np.array(gated), np.array(seen[f"{place}down_proj.{e}"]), atol=1e-5)


def test_a_logit_that_is_not_a_number_ends_as_one():
    _, weights = mixtral()
    other = of_weights(weights | {name: np.full_like(weights[name], np.nan) for name in ROUTERS})
    assert np.isnan(run(other, random_ids(20), 20)).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_experts_per_tok": 6}, "num_experts_per_tok 6 is more than num_local_experts 5"),
        ({"num_local_experts": 0}, "num_local_experts is 0"),
        ({"num_experts_per_tok": 1.5}, "num_experts_per_tok is 1.5"),
        ({"model_type": "mistral"}, "num_local_experts is 5, which this program does not implement"),
        ({"num_shared_experts": 2}, "num_shared_experts is 2, which this program does not implement"),
        ({"num_shared_experts": 1}, "num_shared_experts is 1, which this program does not implement"),
        ({"num_local_experts": 256, "num_hidden_layers": 65}, "are 16640 experts; at most 16384 are expected"),
    ],
)
def test_a_mixture_that_is_none_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message.replace(".", r"\.")):
        ModelArgs.from_config(tiny_config(**MIXTRAL | changes))


def test_what_a_config_leaves_out_is_that_of_mixtral_8x7b():
    config = {key: value for key, value in tiny_config(**MIXTRAL).items() if key in ("model_type", "hidden_size")}
    sizes = {"num_hidden_layers": 1, "num_attention_heads": 8, "intermediate_size": 64, "vocab_size": 64}
    args = ModelArgs.from_config(config | sizes)
    assert (args.n_experts, args.n_experts_per_token, args.rope_theta, args.sliding_window) == (8, 2, 1e6, (None,))


def test_a_copy_of_mixtral_with_a_window_is_remarked_on():
    found = [list(remarks(mixtral(sliding_window=window)[0].args)) for window in (None, W)]
    assert [len(said) for said in found] == [0, 1]
    assert "sliding_window to null" in found[1][0]

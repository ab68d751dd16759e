"""Models whose rotary positions are scaled (YaRN, Llama 3) and whose queries are, for all ways to cut a text."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_model
from reference import forward

from mistral_mlx.kernels import native
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache import make_cache
from mistral_mlx.model.rope import Llama3, Yarn, inverse_frequencies, rotation

N = 150  # positions; the ring for a window of 8 has 128 slots
YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 16, "rope_theta": 1e4}
EVEN = YARN | {"mscale": 1.0, "mscale_all_dim": 1.0}
GRAPHS = {
    "ministral3": {"model_type": "ministral3", "rope_parameters": EVEN | {"llama_4_scaling_beta": 0.5}},
    "ministral3, window": {
        "model_type": "ministral3",
        "rope_parameters": EVEN | {"llama_4_scaling_beta": 0.5},
        "sliding_window": 8,
    },
    "ministral3, longer": {"model_type": "ministral3", "rope_parameters": YARN | {"mscale": 1, "mscale_all_dim": 0}},
    "yarn, window": {"rope_scaling": YARN, "sliding_window": 8},
    "yarn, fast 4": {"rope_parameters": YARN | {"beta_fast": 4}},
    "yarn, parts of pairs": {"rope_parameters": YARN | {"truncate": False}},
    "yarn, no ramp": {"rope_parameters": YARN | {"original_max_position_embeddings": 4}},
    "yarn, ramp past the end": {"rope_parameters": YARN | {"original_max_position_embeddings": 10**6}},
    "llama3": {
        "model_type": "llama",
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64,
        },
    },
}


def scaled_model(graph, **changes):
    return tiny_model(**{"sliding_window": None} | GRAPHS[graph] | {"head_dim": 16, "rope_theta": None} | changes)


def random_ids(n=N):
    return np.random.default_rng(1).integers(0, 64, n)


def run(model, ids, sizes):
    """Return logits ``[S, V]`` of `ids`, cut into steps of these sizes in turn."""
    cache, parts, start = make_cache(model.args), [], 0
    while start < len(ids):
        size = sizes[len(parts) % len(sizes)]
        parts.append(np.array(model(mx.array(ids[None, start : start + size]), cache)[0]))
        start += size
    return np.concatenate(parts)


@pytest.mark.parametrize("sizes", [(N,), (1,), (7, 1, 1), (17,), (60, 1)], ids=str)
@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.usefixtures("_every_path")
def test_any_step_sizes_match_the_reference(graph, sizes):
    model, weights = scaled_model(graph)
    ids = random_ids()
    np.testing.assert_allclose(run(model, ids, sizes), forward(model.args, weights, ids), atol=5e-4)


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
@pytest.mark.parametrize("graph", ["ministral3", "ministral3, window"])
def test_a_token_has_the_same_bits_in_every_step(graph):
    model, _ = scaled_model(graph)
    ids = random_ids()
    whole = run(model, ids, (N,))
    for sizes in ((1,), (5, 1), (64,)):
        np.testing.assert_array_equal(run(model, ids, sizes), whole)


@pytest.mark.parametrize("graph", ["ministral3", "ministral3, window"])
@pytest.mark.usefixtures("_every_path")
def test_tokens_taken_back_are_read_again_at_their_positions(graph):
    """After the wrap of the ring; the query scale goes by positions, not by slots."""
    model, weights = scaled_model(graph)
    ids, cache = random_ids(), make_cache(model.args)
    for start, stop in ((0, 140), (140, 145)):
        model(mx.array(ids[None, start:stop]), cache)
    for layer in cache:
        layer.trim(30)
    again = np.array(model(mx.array(ids[None, 115:]), cache)[0])
    np.testing.assert_allclose(again, forward(model.args, weights, ids)[115:], atol=5e-4)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.usefixtures("_every_path")
def test_calibration_sees_the_same_model(graph):
    """The inputs of matrices are observed by single steps."""
    model, _ = scaled_model(graph)
    block, x = model.model.layers[0], mx.random.normal((1, 40, 32), key=mx.random.key(0))
    seen = []
    result = block.observed(x, make_cache(model.args)[0], lambda modules, inputs: seen.append(modules))
    expected = block(x, make_cache(model.args)[0])
    assert mx.allclose(result, expected, atol=1e-4) and len(seen) == 4


@pytest.mark.parametrize("graph", GRAPHS)
def test_scaling_counts(graph):
    """Of a model without it, the logits are others."""
    model, weights = scaled_model(graph)
    plain, _ = tiny_model(sliding_window=model.args.sliding_window[0], head_dim=16)
    ids = random_ids(40)
    assert np.abs(run(plain, ids, (40,)) - forward(model.args, weights, ids)).max() > 0.05


def test_a_query_scale_is_one_before_the_original_context():
    with_scale, _ = scaled_model("ministral3")
    without, _ = scaled_model("ministral3", rope_parameters=EVEN)
    ids, original = random_ids(40), with_scale.args.query_scale.original
    scaled, plain = (run(model, ids, (40,)) for model in (with_scale, without))
    np.testing.assert_array_equal(scaled[:original], plain[:original])
    assert np.abs(scaled - plain)[original].max() > 1e-3


@pytest.mark.parametrize("scaling", [Yarn(1.0, 64), Llama3(1.0, 1.0, 4.0, 64)])
def test_a_factor_of_one_scales_nothing(scaling):
    np.testing.assert_allclose(
        rotation(128, 1e6, scaling).frequencies, inverse_frequencies(128, 1e6), rtol=1e-15, atol=0
    )


# Computed by the formulas of transformers 5.24 in float64.
@pytest.mark.parametrize(
    ("base", "scaling", "expected"),
    [
        (1e6, Yarn(16, 16384), {0: 1, 16: 3.162278e-2, 24: 4.382954e-3, 31: 4.881630e-4, 63: 7.755861e-8}),
        (1e8, Yarn(48, 8192), {0: 1, 16: 6.987179e-3, 24: 9.615385e-5, 31: 2.778170e-6, 63: 2.778170e-10}),
        (1e6, Yarn(64, 4096, 4), {0: 1, 16: 3.162278e-2, 24: 4.931470e-3, 31: 1.938965e-5, 63: 1.938965e-8}),
        (
            5e5,
            Llama3(8, 1, 4, 8192),
            {
                0: 1, 24: 7.292665e-3, 28: 3.211446e-3, 29: 2.166571e-3, 30: 1.371894e-3,
                34: 1.785078e-4, 35: 9.556212e-5, 40: 3.428102e-5, 63: 3.068926e-7,
            },
        ),
    ],
    ids=["Ministral 3 3B", "Devstral Small 2", "Devstral 2", "Llama 3.1"],
)  # fmt: skip
def test_frequencies_of_published_models(base, scaling, expected):
    found = rotation(128, base, scaling).frequencies
    np.testing.assert_allclose([found[i] for i in expected], list(expected.values()), rtol=2e-6)


@pytest.mark.parametrize(
    ("keys", "length"),
    [
        ({}, 1 + 0.1 * np.log(16)),
        ({"mscale": 1.0, "mscale_all_dim": 1.0}, 1.0),
        ({"mscale": 1.0, "mscale_all_dim": 0.0}, 1 + 0.1 * np.log(16)),
        ({"mscale": 2.0, "mscale_all_dim": 1.0}, (1 + 0.2 * np.log(16)) / (1 + 0.1 * np.log(16))),
        ({"mscale": 2.0}, 1 + 0.1 * np.log(16)),
        ({"attention_factor": 1.5, "mscale": 1.0, "mscale_all_dim": 1.0}, 1.5),
        ({"factor": 1.0}, 1.0),
    ],
)
def test_the_attention_factor(keys, length):
    args = scaled_model("ministral3", rope_parameters=YARN | keys)[0].args
    assert args.rope_scaling.attention_factor == pytest.approx(length, rel=1e-12)


def test_ministral3_scales_by_default():
    config = {"model_type": "ministral3", "hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1}
    args = ModelArgs.from_config(config | {"num_attention_heads": 16, "vocab_size": 8})
    assert (args.rope_scaling, args.query_scale) == (Yarn(16.0, 16384), (0.1, 16384))
    assert (args.rope_theta, args.head_dim, args.n_kv_heads, args.norm_eps) == (1e6, 128, 8, 1e-5)
    assert (args.sliding_window, args.max_position_embeddings) == ((None,), 262_144)

"""The logits of transformers 5 in float32, around every boundary; tests/oracles has the script that wrote them."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from oracles.graphs import CONFIGS, POSITIONS, random_ids, random_weights

from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.cache import make_cache
from mistral_mlx.model.mistral import Mistral

MADE = json.loads((Path(__file__).parents[1] / "oracles" / "transformers_logits.json").read_text())
EPS = 2e-4  # of logits up to 8; transformers rounds frequencies to float32


def oracle_weights(args):
    shapes = expected_shapes(args)
    if args.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return random_weights(shapes)


def oracle_model(config):
    args = ModelArgs.from_config(config)
    weights = oracle_weights(args)
    model = Mistral(args, tied="lm_head.weight" not in weights)
    model.load_weights([(name, mx.array(w)) for name, w in weights.items()])
    return model


def logits(model, step):
    ids, cache = random_ids(), make_cache(model.args)
    parts = [np.array(model(mx.array(ids[None, i : i + step]), cache)[0]) for i in range(0, len(ids), step)]
    return np.concatenate(parts)[POSITIONS]


@pytest.mark.parametrize("step", [1, 7, 150])
@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.usefixtures("_every_path")
def test_logits_are_those_of_transformers(name, step):
    assert np.abs(logits(oracle_model(CONFIGS[name]), step) - np.array(MADE["logits"][name])).max() < EPS


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("ministral3", {"llama_4_scaling_beta": 0}),
        ("ministral3, as Devstral 2", {"beta_fast": 32.0}),
        ("ministral3, as Devstral 2", {"beta_slow": 2.0}),
        ("ministral3, as Devstral 2", {"mscale_all_dim": 1.0}),
        ("ministral3, as Devstral 2", {"llama_4_scaling_beta": 0.1}),
        ("ministral3", {"mscale_all_dim": 0}),
        ("ministral3", {"factor": 15.0}),
        ("ministral3", {"original_max_position_embeddings": 17}),
        ("llama, llama3, tied", {"original_max_position_embeddings": 128}),
        ("llama, llama3, tied", {"high_freq_factor": 8.0}),
    ],
    ids=str,
)
def test_each_key_would_be_missed(name, keys):
    config = CONFIGS[name]
    other = oracle_model(config | {"rope_parameters": config["rope_parameters"] | keys})
    assert np.abs(logits(other, 150) - np.array(MADE["logits"][name])).max() > 10 * EPS

"""Copies of published models that are not what their publisher means."""

import pytest

from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.known import remarks

DEVSTRAL_2 = {
    "model_type": "ministral3",
    "hidden_size": 12288,
    "intermediate_size": 28672,
    "num_hidden_layers": 88,
    "num_attention_heads": 96,
    "num_key_value_heads": 8,
    "vocab_size": 131072,
    "rope_parameters": {
        "rope_type": "yarn",
        "rope_theta": 1e6,
        "factor": 64.0,
        "original_max_position_embeddings": 4096,
        "beta_fast": 4.0,
        "mscale": 1.0,
        "mscale_all_dim": 0.0,
        "llama_4_scaling_beta": 0.0,
    },
}
MINISTRAL_8B = {
    "model_type": "mistral",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 131072,
    "head_dim": 128,
    "rope_theta": 1e8,
    "sliding_window": 32768,
    "max_position_embeddings": 32768,
}


def said(config, **changes):
    return list(remarks(ModelArgs.from_config(config | changes)))


def test_medium_3_5_before_its_correction_is_another_model():
    early = DEVSTRAL_2["rope_parameters"] | {"mscale_all_dim": 1.0}
    (remark,) = said(DEVSTRAL_2, rope_parameters=early)
    assert "mscale_all_dim 0" in remark and "\n" not in remark
    assert said(DEVSTRAL_2) == []


def test_ministral_8b_with_one_window_is_exact_to_its_end():
    (remark,) = said(MINISTRAL_8B)
    assert "exact up to 32,768 tokens" in remark and "\n" not in remark


@pytest.mark.parametrize(
    "changes",
    [
        {"layer_types": ["full_attention", *["sliding_attention"] * 3] * 9},
        {"sliding_window": [131072, 32768, 32768, 32768]},
        {"sliding_window": None},
        {"num_hidden_layers": 32},
    ],
)
def test_ministral_8b_as_mistral_has_it_is_the_model(changes):
    assert said(MINISTRAL_8B, **changes) == []

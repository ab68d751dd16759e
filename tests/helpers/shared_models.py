"""Tiny models that two to four processes can share, in the ways that files have: plain, packed, mixed, with experts."""

from pathlib import Path

import mlx.core as mx
import numpy as np
from helpers.mixtures import fused, per_expert
from helpers.models import tiny_config, tiny_weights, write_folder

from mistral_mlx.model.args import ModelArgs

# 4 key heads, o_proj with 256 inputs, 5 groups of 64 hidden units: uneven shares.
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 320,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 4,
    "head_dim": 32,
    "sliding_window": 8,
    "max_position_embeddings": 4096,
}
EIGHT = {"num_key_value_heads": 8}
TIED = {"tie_word_embeddings": True}
EXPERTS = {"model_type": "mixtral", "num_local_experts": 4, "num_experts_per_tok": 2}
YARN = {"rope_type": "yarn", "factor": 16.0, "original_max_position_embeddings": 16, "rope_theta": 1e4}
SCALED = YARN | {"mscale": 1.0, "mscale_all_dim": 1.0, "llama_4_scaling_beta": 0.5}
BITS4, BITS8 = {"group_size": 32, "bits": 4}, {"group_size": 64, "bits": 8}
MIXED = {
    "group_size": 64,
    "bits": 4,
    "model.embed_tokens": {"group_size": 32, "bits": 8},
    "model.layers.0.mlp.down_proj": {"group_size": 32, "bits": 3},
    "model.layers.1.self_attn.o_proj": {"group_size": 64, "bits": 6},
    "model.layers.2.mlp.up_proj": {"group_size": 32, "bits": 5},
    "model.layers.2.self_attn.v_proj": False,
}


def packed(
    weights: dict[str, np.ndarray], rules: dict[str, object], dtype: mx.Dtype = mx.float16
) -> dict[str, mx.array]:
    """Return weights packed as the entry ``quantization`` of config.json says."""
    found: dict[str, mx.array] = {}
    for name, weight in weights.items():
        path = name.removesuffix(".weight")
        rule, array = rules.get(path, rules), mx.array(weight).astype(dtype)
        if weight.ndim == 1 or rule is False or path.endswith("block_sparse_moe.gate"):
            found[name] = array
            continue
        mode = rule.get("mode", "affine")
        parts = mx.quantize(array, rule["group_size"], rule["bits"], mode=mode)
        found |= zip((name, f"{path}.scales", f"{path}.biases"), parts, strict=False)
    return found


def write_shared(
    path: Path, *, quantization: dict[str, object] | None = None, dtype=mx.float32, layout=dict, seed=0, **changes
):
    """Write a folder; `layout` renames the tensors of a mixture."""
    config = tiny_config(**{**SIZES, **changes})
    if quantization is not None:
        config["quantization"] = quantization
    weights = tiny_weights(ModelArgs.from_config(config), seed=seed)
    arrays = layout(weights)
    if quantization is not None:
        return write_folder(path, config, packed(arrays, quantization))
    arrays = {name: mx.array(weight).astype(dtype) for name, weight in arrays.items()}
    return write_folder(path, config, arrays)


MODELS = {
    "float32": {"dtype": mx.float32},
    "eight heads, tied, bfloat16": {"dtype": mx.bfloat16, **EIGHT, **TIED},
    "float16, no window": {"dtype": mx.float16, "sliding_window": None},
    "4 bits": {"quantization": BITS4},
    "8 bits, tied": {"quantization": BITS8, **TIED, **EIGHT},
    "mixed bits": {"quantization": MIXED},
    "mxfp4": {"quantization": {"group_size": 32, "bits": 4, "mode": "mxfp4"}},
    "nvfp4": {"quantization": {"group_size": 16, "bits": 4, "mode": "nvfp4"}},
    "windows of layers": {"dtype": mx.float32, "sliding_window": [8, None, 70]},
    "yarn, scaled queries": {
        "dtype": mx.float32,
        "model_type": "ministral3",
        "rope_parameters": SCALED,
        "rope_theta": None,
        "sliding_window": 8,
    },
    "experts": {"dtype": mx.float32, **EXPERTS},
    "experts apart": {"dtype": mx.bfloat16, "layout": per_expert, **EXPERTS},
    "experts in 4 bits": {"quantization": BITS4, **EXPERTS},
    "experts fused": {"dtype": mx.float32, "layout": fused, **EXPERTS},
}


def write_model(path: Path, name: str) -> Path:
    """Write the model of that name."""
    return write_shared(path, **MODELS[name])

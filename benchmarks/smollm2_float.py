"""Writes SmolLM2-135M as float32 weights: the same function, off the grid of its own file.

    python benchmarks/smollm2_float.py FILE.gguf FOLDER [--as-shipped]

The file's weights are 4 and 8 bits in groups of 32, which 4 bits in groups of 32 hold exactly: no fair source. So each
norm is folded into the products behind it, and the channels between v and o and between up and down are scaled by
factors of their own, which changes no output: the sum over a channel stays what it was.
"""

import argparse
import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mistral_mlx.convert import convert
from mistral_mlx.model.args import ModelArgs

SPREAD = 0.2  # factors are e ** -SPREAD to e ** SPREAD

Weights = dict[str, NDArray[np.float32]]


def main() -> None:
    """Write the folder."""
    options = argparse.ArgumentParser(description="SmolLM2-135M as plain float32 weights.", allow_abbrev=False)
    options.add_argument("file", type=Path)
    options.add_argument("folder", type=Path)
    options.add_argument("--as-shipped", action="store_true", help="leave the weights on the grid of the file")
    given = options.parse_args()
    convert(given.file, given.folder, dequantize=True, dtype="float32")
    if given.as_shipped:
        return
    args = ModelArgs.from_config(json.loads((given.folder / "config.json").read_text()))
    path = str(given.folder / "model.safetensors")
    arrays = mx.load(path)
    assert isinstance(arrays, dict)
    weights = {name: np.array(array) for name, array in arrays.items()}
    rng = np.random.default_rng(0)
    for layer in range(args.n_layers):
        _move(weights, f"model.layers.{layer}.", args, rng)
    mx.save_safetensors(path, {name: mx.array(weight) for name, weight in weights.items()})


def _move(weights: Weights, prefix: str, args: ModelArgs, rng: np.random.Generator) -> None:
    for norm, products in (("input_layernorm", "qkv"), ("post_attention_layernorm", ("gate", "up"))):
        factors = weights[f"{prefix}{norm}.weight"]
        for product in products:
            part = "self_attn" if norm == "input_layernorm" else "mlp"
            weights[f"{prefix}{part}.{product}_proj.weight"] *= factors
        weights[f"{prefix}{norm}.weight"] = np.ones_like(factors)
    hidden = _factors(rng, args.hidden_dim)
    weights[f"{prefix}mlp.up_proj.weight"] *= hidden[:, None]
    weights[f"{prefix}mlp.down_proj.weight"] /= hidden
    values = _factors(rng, args.n_kv_heads * args.head_dim)
    weights[f"{prefix}self_attn.v_proj.weight"] *= values[:, None]
    heads = values.reshape(args.n_kv_heads, args.head_dim)
    weights[f"{prefix}self_attn.o_proj.weight"] /= heads.repeat(args.n_heads // args.n_kv_heads, axis=0).reshape(-1)


def _factors(rng: np.random.Generator, n: int) -> NDArray[np.float32]:
    return np.exp(rng.uniform(-SPREAD, SPREAD, n)).astype(np.float32)


if __name__ == "__main__":
    main()

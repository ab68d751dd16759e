"""FP8 checkpoints in all three layouts, encoded by MLX."""

import json
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from helpers.convert_sources import CONFIG, PARAMS, native_name, native_weights, random_weights, write_safetensors


class Spelling(NamedTuple):
    """A layout: how a checkpoint names its scales, and its entry in the config."""

    scale: str
    activation: str
    rule: dict[str, object]


def compressed(**weights: object) -> dict[str, object]:
    group = {"weights": {"num_bits": 8, "type": "float", **weights}}
    return {"quant_method": "compressed-tensors", "format": "float-quantized", "config_groups": {"group_0": group}}


BLOCKS = {"quant_method": "fp8", "weight_block_size": [48, 80], "activation_scheme": "dynamic"}
PER_TENSOR = {"quant_method": "fp8", "weight_block_size": None, "activation_scheme": "static"}
HF = Spelling("weight_scale_inv", "activation_scale", PER_TENSOR)
COMPRESSED = Spelling("weight_scale", "input_scale", compressed(strategy="channel"))
NATIVE = Spelling("qscale_weight", "qscale_act", {"qformat_weight": "fp8_e4m3", "qscheme_act": "TENSOR"})


def encoded(weight: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return codes of weight / scale, and their weights: MLX's conversion times the scale."""
    codes = mx.to_fp8(mx.array(weight / scale))
    return np.array(codes), np.array(mx.from_fp8(codes, dtype=mx.float32)) * scale


def scales_of(weight: np.ndarray, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the scales as they are stored, and a scale for every weight."""
    if kind == "tensor":
        scale = np.float32(np.abs(weight).max() / 448)
        return np.asarray(scale), np.full(weight.shape, scale)
    if kind == "channel":
        rows = (np.abs(weight).max(axis=1, keepdims=True) / 448).astype(np.float32)
        return rows, np.broadcast_to(rows, weight.shape)
    n, m = -(-weight.shape[0] // 48), -(-weight.shape[1] // 80)
    blocks = np.random.default_rng(3).uniform(0.5e-3, 2e-3, (n, m)).astype(np.float32)
    every = np.array([[blocks[i // 48, j // 80] for j in range(weight.shape[1])] for i in range(weight.shape[0])])
    return blocks, every


def fp8_folder(path: Path, spelling: Spelling, kind: str, **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Write a folder with FP8 projections; return the decoded weights by Hugging Face name."""
    native = spelling is NATIVE
    tensors: dict[str, np.ndarray] = {}
    decoded: dict[str, np.ndarray] = {}
    dtypes = {}
    for name, weight in random_weights(CONFIG).items():
        decoded[name] = tensors[name] = weight
        if "proj" not in name:
            continue
        scale, every = scales_of(weight, kind)
        tensors[name], decoded[name] = encoded(weight, every)
        path_of = name.removesuffix(".weight")
        tensors[f"{path_of}.{spelling.scale}"] = scale
        tensors[f"{path_of}.{spelling.activation}"] = np.ones((), np.float32)
        dtypes[name] = "F8_E4M3"
    if native:
        tensors, dtypes = native_weights(tensors), {native_name(name): dtype for name, dtype in dtypes.items()}
        tensors["layers.0.attention.kv_fake_quantizer.qscale_act"] = np.ones((), np.float32)
    for name, array in changes.items():
        tensors[name.replace("__", ".")] = array
        if array is not None and array.dtype != np.uint8:
            dtypes.pop(name.replace("__", "."), None)
    tensors = {name: array for name, array in tensors.items() if array is not None}
    path.mkdir()
    file, config = ("params.json", {**PARAMS, "quantization": spelling.rule}) if native else (
        "config.json", {**CONFIG, "quantization_config": spelling.rule})  # fmt: skip
    (path / file).write_text(json.dumps(config))
    write_safetensors(path / f"{'consolidated' if native else 'model'}.safetensors", tensors, dtypes)
    return decoded

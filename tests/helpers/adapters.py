"""Adapters in the formats of PEFT and mlx-lm, made from a seed."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from helpers.convert_sources import CONFIG, random_weights

Arrays = dict[str, np.ndarray]

RANK = 4
PATHS = ("model.layers.0.self_attn.q_proj", "model.layers.1.self_attn.k_proj", "model.layers.1.mlp.down_proj")
PEFT = {
    "peft_type": "LORA", "task_type": "CAUSAL_LM", "r": RANK, "lora_alpha": 6, "lora_dropout": 0.1, "bias": "none",
    "target_modules": ["q_proj", "k_proj", "down_proj"], "fan_in_fan_out": False, "use_rslora": False,
    "use_dora": False,     "inference_mode": True, "base_model_name_or_path": "some/base", "modules_to_save": None,
    "init_lora_weights": True,    "rank_pattern": {}, "alpha_pattern": {}, "layers_to_transform": None,
}  # fmt: skip
MLX = {
    "model": "some/base", "train": True, "iters": 10, "fine_tune_type": "lora", "num_layers": 2,
    "lora_parameters": {"rank": RANK, "scale": 1.5, "dropout": 0.0},
}  # fmt: skip


def factors(paths: tuple[str, ...] = PATHS, *, seed: int = 1) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Return B [out, r] and A [r, in] of every module."""
    rng, shapes = np.random.default_rng(seed), {name: w.shape for name, w in random_weights(CONFIG).items()}
    return {
        path: tuple(rng.standard_normal(shape, dtype=np.float32) * 0.2 for shape in ((out, RANK), (RANK, columns)))
        for path in paths
        for out, columns in [shapes[f"{path}.weight"]]
    }


def merged(weights: Arrays, scale: float, magnitudes: Arrays | None = None) -> Arrays:
    """Return `weights` plus the update of `factors`, by its definition in float64."""
    found = {name: weight.astype(np.float64) for name, weight in weights.items()}
    for path, (b, a) in factors().items():
        weight = found[f"{path}.weight"] + scale * (b.astype(np.float64) @ a.astype(np.float64))
        if magnitudes:
            weight *= (magnitudes[path] / np.sqrt((weight**2).sum(axis=1)))[:, None]
        found[f"{path}.weight"] = weight
    return found


def magnitudes() -> Arrays:
    """Return m [out] of every module."""
    rng = np.random.default_rng(2)
    return {path: rng.uniform(0.5, 2, b.shape[0]).astype(np.float32) for path, (b, _) in factors().items()}


def peft_tensors(dora: Arrays | None = None) -> Arrays:
    """Return the tensors under PEFT's names."""
    found = {}
    for path, (b, a) in factors().items():
        found |= {f"base_model.model.{path}.lora_A.weight": a, f"base_model.model.{path}.lora_B.weight": b}
    return found | {f"base_model.model.{path}.lora_magnitude_vector": m for path, m in (dora or {}).items()}


def mlx_tensors(dora: Arrays | None = None) -> Arrays:
    """Return the tensors under mlx-lm's names, transposed."""
    found = {}
    for path, (b, a) in factors().items():
        found |= {f"{path}.lora_a": a.T, f"{path}.lora_b": b.T}
    return found | {f"{path}.m": m for path, m in (dora or {}).items()}


def write_peft(path: Path, tensors: Arrays | None = None, **config: object) -> Path:
    """Write an adapter of PEFT; `config` changes or adds keys of its config."""
    return _write(path, "adapter_model.safetensors", peft_tensors() if tensors is None else tensors, {**PEFT, **config})


def write_mlx(path: Path, tensors: Arrays | None = None, **config: object) -> Path:
    """Write an adapter of mlx-lm; `config` changes or adds keys of its config."""
    return _write(path, "adapters.safetensors", mlx_tensors() if tensors is None else tensors, {**MLX, **config})


def _write(path: Path, name: str, tensors: Arrays, config: dict[str, object]) -> Path:
    path.mkdir()
    (path / "adapter_config.json").write_text(json.dumps(config))
    mx.save_safetensors(str(path / name), {key: mx.array(np.ascontiguousarray(t)) for key, t in tensors.items()})
    return path

"""One tiny Mixtral in every layout that files have, from weights under the names and shapes of the model."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import gguf
import mlx.core as mx
import numpy as np
from helpers.convert_sources import (
    CONFIG,
    PARAMS,
    add_weights,
    close,
    gguf_name,
    gguf_writer,
    native_weights,
    write_folder,
    write_native,
)
from helpers.models import tiny_weights

from mistral_mlx.model.args import ModelArgs

Config = dict[str, object]
Weights = dict[str, np.ndarray]

MIXTRAL: Config = {
    **CONFIG,
    "architectures": ["MixtralForCausalLM"],
    "model_type": "mixtral",
    "num_local_experts": 4,
    "num_experts_per_tok": 2,
}
EXPERTS = ".block_sparse_moe.switch_mlp."
ROUTER = ".block_sparse_moe.gate."
LETTERS = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}


def weights_of(config: Config = MIXTRAL, *, seed: int = 0) -> Weights:
    """Return float32 weights so wide that every expert counts."""
    return tiny_weights(ModelArgs.from_config(config), seed=seed)


def split(weights: Weights) -> Iterator[tuple[str, str, int | None, np.ndarray]]:
    """Yield (layer's prefix, rest of the name, expert, matrix); of what is no expert's: ("", name, None, weight)."""
    for name, weight in weights.items():
        layer, is_expert, rest = name.partition(EXPERTS)
        if not is_expert:
            yield "", name, None, weight
        for e in range(len(weight) if is_expert else 0):
            yield layer, rest.removesuffix(".weight"), e, weight[e]


def per_expert(weights: Weights) -> Weights:
    """Return the weights as Hugging Face's files have them."""
    return {
        name if e is None else f"{layer}.block_sparse_moe.experts.{e}.{LETTERS[name]}.weight": weight
        for layer, name, e, weight in split(weights)
    }


def fused(weights: Weights) -> Weights:
    """Return the weights as the modules of transformers 5 have them."""
    found: Weights = {}
    for name, weight in weights.items():
        layer, is_expert, rest = name.partition(EXPERTS)
        if not is_expert:
            found[name.replace(ROUTER, ".mlp.gate.")] = weight
        elif rest == "down_proj.weight":
            found[f"{layer}.mlp.experts.down_proj"] = weight
        elif rest == "gate_proj.weight":
            both = [weight, weights[f"{layer}{EXPERTS}up_proj.weight"]]
            found[f"{layer}.mlp.experts.gate_up_proj"] = np.concatenate(both, axis=1)
    return found


def native(weights: Weights) -> Weights:
    """Return the weights as Mistral's own files have them."""
    own: Weights = {}
    for layer, name, e, weight in split(weights):
        if e is not None:
            number = layer.removeprefix("model.layers.")
            own[f"layers.{number}.feed_forward.experts.{e}.{LETTERS[name]}.weight"] = weight
        elif ROUTER in name:
            own[name.removeprefix("model.").replace(ROUTER, ".feed_forward.gate.")] = weight
    return own | native_weights({name: w for name, w in weights.items() if ".block_sparse_moe." not in name})


def params(config: Config = MIXTRAL) -> Config:
    """Return the params.json of a config."""
    moe = {"num_experts": config["num_local_experts"], "num_experts_per_tok": config["num_experts_per_tok"]}
    return {**PARAMS, "moe": moe}


def write_gguf(
    path: Path,
    weights: Weights,
    *kinds: str,
    config: Config = MIXTRAL,
    stacked: bool = True,
    blocks: Mapping[str, tuple[str, np.ndarray]] = MappingProxyType({}),
    **keys: int,
) -> Weights:
    """Write a GGUF file; return the weights as they are after that storage, under the model's names.

    Experts that are not stacked take turns in `kinds`; everything else has the first one (F32 if there is none).
    `blocks` are tensors of a kind that the gguf library cannot make, as they lie in the file.
    """
    kinds = kinds or ("F32",)
    writer = gguf_writer(path, config)
    counts = {"expert_count": config["num_local_experts"], "expert_used_count": config["num_experts_per_tok"]} | keys
    for key, count in counts.items():
        writer.add_uint32(f"llama.{key}", count)
    whole = weights if stacked else {name: w for name, w in weights.items() if EXPERTS not in name}
    # llama.cpp has the router in float32.
    stored = add_weights(writer, whole, {name: "F32" if ROUTER in name else kinds[0] for name in whole}, config)
    for layer, name, e, weight in split(weights):
        if e is not None and not stacked:
            number, part, kind = layer.removeprefix("model.layers."), name.removesuffix("_proj"), kinds[e % len(kinds)]
            qtype = gguf.GGMLQuantizationType[kind]
            data = gguf.quants.quantize(weight, qtype)
            writer.add_tensor(f"blk.{number}.ffn_{part}.{e}.weight", data, raw_dtype=qtype)
            stored.setdefault(f"{layer}{EXPERTS}{name}.weight", []).append(as_stored(weight, kind))
    for name, (kind, data) in blocks.items():
        writer.add_tensor(gguf_name(name), data, raw_dtype=gguf.GGMLQuantizationType[kind])
    close(writer)
    return {name: np.asarray(weight) for name, weight in stored.items()}


def as_stored(weight: np.ndarray, kind: str) -> np.ndarray:
    """Return a weight as it is after being stored as `kind`."""
    qtype = gguf.GGMLQuantizationType[kind]
    return gguf.quants.dequantize(gguf.quants.quantize(weight, qtype), qtype)


def _folder(change: Callable[[Weights], Weights]) -> Callable[[Path, Config, Weights], Path]:
    def write(path: Path, config: Config, weights: Weights) -> Path:
        arrays = {name: mx.array(w) for name, w in change(weights).items()}
        return write_folder(path, config, weights=arrays, shards=2)

    return write


def _native(path: Path, config: Config, weights: Weights) -> Path:
    return write_native(path, params(config), weights={name: mx.array(w) for name, w in native(weights).items()})


def _gguf(*, stacked: bool) -> Callable[[Path, Config, Weights], Path]:
    def write(path: Path, config: Config, weights: Weights) -> Path:
        write_gguf(path.with_suffix(".gguf"), weights, config=config, stacked=stacked)
        return path.with_suffix(".gguf")

    return write


LAYOUTS = {
    "hugging face": _folder(per_expert),
    "transformers 5": _folder(fused),
    "mlx": _folder(dict),
    "native": _native,
    "gguf": _gguf(stacked=True),
    "gguf of 2023": _gguf(stacked=False),
}

"""Adapters as mlx-lm writes them: adapter_config.json and adapters.safetensors.

The config is that of a whole training run; what counts is what mlx_lm/tuner/utils.py reads of it when it loads one.
"""

import re
from collections import defaultdict
from collections.abc import Mapping

from mistral_mlx.convert.sources.source import Source
from mistral_mlx.convert.storage.low_rank import Factor, LowRank
from mistral_mlx.errors import CheckpointError, ConfigError, shown
from mistral_mlx.files.keys import Keys
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.model.wrappers import parts_beside, text_name, text_names

from .changes import CONFIG_NAME, EMBEDDING, Changes, check_rank, keys_of, number, rank

TENSOR = re.compile(r"(.+)\.(lora_a|lora_b|m)")
LAYER = re.compile(r"model\.layers\.(\d{1,9})\.(.+)", re.ASCII)
PARTS = {"lora": {"lora_a", "lora_b"}, "dora": {"lora_a", "lora_b", "m"}}
PARAMETERS = {"rank", "scale", "dropout", "keys"}


def read(config: Mapping[str, object], entries: Mapping[str, TensorEntry], source: Source) -> Changes:
    """Return what the adapter changes.

    Raises ConfigError for a key that is malformed or not supported, CheckpointError for tensors that are not expected.
    """
    base, keys = config.get("model"), keys_of(config)
    kind = keys.one_of("fine_tune_type", (*PARTS, "full"), default="lora")
    if kind == "full":
        whole = {plain: entries[name] for plain, name in text_names(entries, "adapter").items()}
        return Changes({}, whole, base, beside=parts_beside(entries))
    parameters = keys.entries("lora_parameters")
    if parameters is None:
        raise keys.bad("lora_parameters", None, "an object")
    if unknown := set(parameters) - PARAMETERS:
        raise ConfigError(f"{CONFIG_NAME}: lora_parameters.{shown(min(unknown))} is not known to mlx-lm's adapters")
    parts: dict[str, dict[str, TensorEntry]] = defaultdict(dict)
    for name, entry in entries.items():
        match = TENSOR.fullmatch(name)
        if match is None:
            raise CheckpointError(f"the adapter's tensor {shown(name)} is none of lora_a, lora_b and m")
        parts[match[1]][match[2]] = entry
    first, names = _first_layer(config, source), _keys(parameters)
    placed = {plain: parts[path] for plain, path in text_names(parts, "adapter").items()}
    for plain, found in placed.items():
        _check_place(plain, set(found) ^ PARTS[kind], found, names, first)
    updates = {f"{plain}.weight": _update(plain, found, parameters) for plain, found in placed.items()}
    return Changes(updates, {}, base, beside=parts_beside(parts))


def _first_layer(config: Mapping[str, object], source: Source) -> int:
    """Return the first of the last `num_layers` layers, which are the ones with an adapter; all if it is below 1."""
    count = config.get("num_layers")
    if type(count) is not int:
        raise keys_of(config).bad("num_layers", count, "a whole number")
    n_layers = 1 + max((int(match[1]) for match in map(LAYER.match, source.tensors) if match), default=-1)
    return max(n_layers - count, 0) if count > 0 else 0


def _keys(parameters: Mapping[str, object]) -> frozenset[str] | None:
    """Return the names of the modules that have an adapter; None for the usual ones."""
    names = Keys(parameters, f"{CONFIG_NAME}: lora_parameters.", ConfigError).names("keys")
    return None if names is None else frozenset(text_name(name) or name for name in names)


def _check_place(
    path: str, wrong: set[str], found: Mapping[str, object], keys: frozenset[str] | None, first: int
) -> None:
    if wrong:
        part = min(wrong)
        raise CheckpointError(
            f"the adapter's tensor {shown(f'{path}.{part}')} is {'not expected' if part in found else 'missing'}"
        )
    match = LAYER.fullmatch(path)
    named = keys is None if match is None else (keys is None or match[2] in keys) and int(match[1]) >= first
    if not (named or (keys is not None and path in keys)):
        raise CheckpointError(f"the adapter has tensors of {shown(path)}, which num_layers and keys leave out")


def _update(path: str, found: Mapping[str, TensorEntry], parameters: Mapping[str, object]) -> LowRank:
    keys = keys_of(parameters)
    scale, r = (
        number(keys, parameters.get("scale"), "lora_parameters.scale"),
        rank(keys, parameters.get("rank"), "lora_parameters.rank"),
    )
    a, b = found["lora_a"], found["lora_b"]  # [in, r], [r, out]; of an embedding [vocabulary, r], [r, dim]
    check_rank(a, a.shape[-1] if a.shape else None, r)
    left, right = (Factor(a), Factor(b)) if path == EMBEDDING else (Factor(b, True), Factor(a, True))
    return LowRank(left, right, scale, Factor(found["m"]) if "m" in found else None)

"""Adapters as PEFT writes them: adapter_config.json and adapter_model.safetensors.

Keys are those of PEFT's LoraConfig (peft/tuners/lora/config.py), the scale and the merge those of lora/layer.py:
alpha / r, or alpha / sqrt(r) with use_rslora.
"""

import math
import re
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

from mistral_mlx.convert.sources.source import Source
from mistral_mlx.convert.storage.low_rank import Factor, LowRank
from mistral_mlx.errors import CheckpointError, ConfigError, shown
from mistral_mlx.files.keys import Keys
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.model.wrappers import parts_beside, text_names

from .changes import CONFIG_NAME, Changes, check_rank, keys_of, number, rank

PREFIX = "base_model.model."
PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
TENSOR = re.compile(rf"(.+)\.({'|'.join(PARTS)})(?:\.weight)?")
LAYER = re.compile(r"model\.layers\.(\d{1,9})\.", re.ASCII)

READ = frozenset("""peft_type r lora_alpha use_rslora use_dora bias rank_pattern alpha_pattern layers_to_transform
    init_lora_weights modules_to_save""".split())  # fmt: skip
# Where the tensors are says as much; or it is about training and loading.
NEUTRAL = frozenset("""target_modules exclude_modules layers_pattern task_type base_model_name_or_path revision
    inference_mode lora_dropout auto_mapping peft_version megatron_core runtime_config eva_config qalora_group_size
    ensure_weight_tying""".split())  # fmt: skip
# Ways to begin that leave the base model as it was; others (pissa, olora, loftq, ...) subtract from its weights.
INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")


@dataclass(frozen=True)
class _Patterns:
    """What the config says of single modules: the first pattern counts that the end of a path matches, as in PEFT."""

    ends: Mapping[str, tuple[int, object]]  # by the names a path ends with: which pattern it is, and its value
    wholes: Mapping[str, tuple[int, object]]  # by whole paths

    def of(self, path: str, usual: object) -> object:
        """Return what is said of the module at `path`; `usual` if there is nothing."""
        names = path.split(".")
        ends = (self.ends.get(".".join(names[i:])) for i in range(len(names)))
        found = [match for match in (*ends, self.wholes.get(path)) if match is not None]
        return min(found, key=lambda match: match[0])[1] if found else usual


def read(config: Mapping[str, object], entries: Mapping[str, TensorEntry], source: Source) -> Changes:
    """Return what the adapter changes.

    Raises ConfigError for a key that is malformed or not supported, CheckpointError for tensors that are not expected.
    """
    del source  # names and shapes are compared by the caller
    keys = keys_of(config)
    _check_config(keys)
    parts: dict[str, dict[str, TensorEntry]] = defaultdict(dict)
    whole = {}
    for name, entry in entries.items():
        if not name.startswith(PREFIX):
            raise CheckpointError(f"the adapter's tensor {shown(name)} does not begin with {PREFIX}, as PEFT's do")
        match = TENSOR.fullmatch(name.removeprefix(PREFIX))
        if match is None:
            whole[name.removeprefix(PREFIX)] = entry
        elif match[2] in parts[match[1]]:
            raise CheckpointError(f"the adapter has {shown(name)} twice")
        else:
            parts[match[1]][match[2]] = entry
    _check_whole(whole, parts, config)
    ranks, alphas = _patterns(config, "rank_pattern"), _patterns(config, "alpha_pattern")
    layers = _layers(config)
    updates = {}
    for plain, path in text_names(parts, "adapter").items():  # the config speaks of paths as the adapter has them
        _check_layer(plain, layers)
        r, alpha = rank(keys, ranks.of(path, config.get("r")), "r"), alphas.of(path, config.get("lora_alpha"))
        updates[f"{plain}.weight"] = _update(path, parts[path], config, r, number(keys, alpha, "lora_alpha"))
    return Changes(
        updates,
        {plain: whole[name] for plain, name in text_names(whole, "adapter").items()},
        config.get("base_model_name_or_path"),
        apart=True,
        beside=parts_beside([*parts, *whole]),
    )


def _check_config(keys: Keys) -> None:
    config = keys.mapping
    if config.get("peft_type") != "LORA":
        raise ConfigError(
            f"{CONFIG_NAME}: peft_type is {shown(repr(config.get('peft_type')))}; only 'LORA' is supported"
        )
    if config.get("bias", "none") != "none":
        raise ConfigError(f"{CONFIG_NAME}: bias is {shown(repr(config['bias']))}; the models here have none")
    if config.get("init_lora_weights") not in INITIAL:
        raise ConfigError(
            f"{CONFIG_NAME}: init_lora_weights is {shown(repr(config['init_lora_weights']))}, which may have changed "
            "the base model too; save the adapter again as one of the unchanged model"
        )
    keys.refuse_unknown(READ | NEUTRAL)
    for key in ("use_rslora", "use_dora"):
        keys.flag(key)


def _check_whole(whole: Mapping[str, TensorEntry], parts: Mapping[str, object], config: Mapping[str, object]) -> None:
    names = keys_of(config).names("modules_to_save") if config.get("modules_to_save") else None
    saved = frozenset(names or ())
    for name in whole:
        path = name.removesuffix(".weight")
        if path in parts or not (path.split(".")[-1] in saved or path in saved):
            raise CheckpointError(
                f"the adapter's tensor {shown(PREFIX + name)} is neither LoRA's nor one of modules_to_save"
            )


def _update(path: str, found: Mapping[str, TensorEntry], config: Mapping[str, object], r: int, alpha: float) -> LowRank:
    embeds = "lora_embedding_A" in found or "lora_embedding_B" in found
    names = PARTS[2:4] if embeds else PARTS[:2]
    expected = {*names, PARTS[4]} if config.get("use_dora") else {*names}
    if set(found) != expected or (embeds and config.get("use_dora")):
        wrong = min(set(found) ^ expected, default="lora_magnitude_vector")
        state = "missing" if wrong not in found else "not expected"
        raise CheckpointError(f"the adapter's tensor {shown(f'{PREFIX}{path}.{wrong}')} is {state}")
    a, b = (
        found[name] for name in names
    )  # [r, in], [out, r]; an embedding's the other way round: in is the vocabulary
    check_rank(a, a.shape[0] if a.shape else None, r)
    scale = alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r
    left, right = (Factor(a, True), Factor(b, True)) if embeds else (Factor(b), Factor(a))
    magnitude = found.get("lora_magnitude_vector")
    return LowRank(left, right, scale, Factor(magnitude) if magnitude else None)


def _patterns(config: Mapping[str, object], key: str) -> _Patterns:
    """Return the patterns under `key`; ``^`` stands for the beginning of a path."""
    patterns = (keys_of(config).entries(key) if config.get(key) else None) or {}
    ends: dict[str, tuple[int, object]] = {}
    wholes: dict[str, tuple[int, object]] = {}
    for i, (name, value) in enumerate(patterns.items()):
        plain = name.removeprefix("^").replace("\\.", ".")
        if not re.fullmatch(r"\w+(\.\w+)*", plain, re.ASCII):
            raise ConfigError(
                f"{CONFIG_NAME}: {key} has the pattern {shown(name)}; only names of modules are supported"
            )
        (wholes if name.startswith("^") else ends).setdefault(plain, (i, value))
    return _Patterns(ends, wholes)


def _layers(config: Mapping[str, object]) -> frozenset[int] | None:
    """Return the layers that have an adapter; None if the config does not say."""
    layers = config.get("layers_to_transform")
    if layers is None:
        return None
    numbers = layers if isinstance(layers, list) else [layers]
    if any(type(layer) is not int for layer in numbers):
        raise ConfigError(f"{CONFIG_NAME}: layers_to_transform is {shown(repr(layers))}; numbers are expected")
    return frozenset(numbers)


def _check_layer(path: str, layers: frozenset[int] | None) -> None:
    match = LAYER.match(path)
    if layers is not None and match and int(match[1]) not in layers:
        raise CheckpointError(f"the adapter has tensors of {shown(path)}, which layers_to_transform leaves out")

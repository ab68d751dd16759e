"""Adapters as PEFT writes them: adapter_config.json and adapter_model.safetensors.

Keys are those of PEFT's LoraConfig (peft/tuners/lora/config.py), the scale and the merge those of lora/layer.py:
alpha / r, or alpha / sqrt(r) with use_rslora.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping

from mistral_mlx.convert.source import Source
from mistral_mlx.errors import CheckpointError, ConfigError, shown
from mistral_mlx.tensor_files import TensorEntry

from .adapter import CONFIG_NAME, Changes, check_rank, number, rank
from .low_rank import Factor, LowRank

PREFIX = "base_model.model."
PARTS = ("lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector")
TENSOR = re.compile(rf"(.+)\.({'|'.join(PARTS)})(?:\.weight)?")
LAYER = re.compile(r"model\.layers\.(\d+)\.")

READ = frozenset("""peft_type r lora_alpha use_rslora use_dora bias rank_pattern alpha_pattern layers_to_transform
    init_lora_weights modules_to_save""".split())  # fmt: skip
# Where the tensors are says as much; or it is about training and loading.
NEUTRAL = frozenset("""target_modules exclude_modules layers_pattern task_type base_model_name_or_path revision
    inference_mode lora_dropout auto_mapping peft_version megatron_core runtime_config eva_config qalora_group_size
    ensure_weight_tying""".split())  # fmt: skip
# Ways to begin that leave the base model as it was; others (pissa, olora, loftq, ...) subtract from its weights.
INITIAL = (True, False, None, "gaussian", "eva", "orthogonal")


def read(config: Mapping[str, object], entries: Mapping[str, TensorEntry], source: Source) -> Changes:
    """Return what the adapter changes.

    Raises ConfigError for a key that is malformed or not supported, CheckpointError for tensors that are not expected.
    """
    del source  # names and shapes are compared by the caller
    _check_config(config)
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
    updates = {f"{path}.weight": _update(path, found, config) for path, found in parts.items()}
    return Changes(updates, whole, config.get("base_model_name_or_path"), apart=True)


def _check_config(config: Mapping[str, object]) -> None:
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
    for key, value in config.items():
        if key not in READ | NEUTRAL and value:
            raise ConfigError(
                f"{CONFIG_NAME}: {shown(key)} is {shown(repr(value))}, which this program does not implement"
            )
    for key in ("use_rslora", "use_dora"):
        if not isinstance(config.get(key, False), bool | None):
            raise ConfigError(f"{CONFIG_NAME}: {key} is {shown(repr(config[key]))}; true or false is expected")


def _check_whole(whole: Mapping[str, TensorEntry], parts: Mapping[str, object], config: Mapping[str, object]) -> None:
    saved = config.get("modules_to_save") or []
    if not isinstance(saved, list) or not all(isinstance(name, str) for name in saved):
        raise ConfigError(f"{CONFIG_NAME}: modules_to_save is {shown(repr(saved))}; a list of names is expected")
    for name in whole:
        path = name.removesuffix(".weight")
        if path in parts or not (path.split(".")[-1] in saved or path in saved):
            raise CheckpointError(
                f"the adapter's tensor {shown(PREFIX + name)} is neither LoRA's nor one of modules_to_save"
            )


def _update(path: str, found: Mapping[str, TensorEntry], config: Mapping[str, object]) -> LowRank:
    embeds = "lora_embedding_A" in found or "lora_embedding_B" in found
    names = PARTS[2:4] if embeds else PARTS[:2]
    expected = {*names, PARTS[4]} if config.get("use_dora") else {*names}
    if set(found) != expected or (embeds and config.get("use_dora")):
        wrong = min(set(found) ^ expected, default="lora_magnitude_vector")
        state = "missing" if wrong not in found else "not expected"
        raise CheckpointError(f"the adapter's tensor {shown(f'{PREFIX}{path}.{wrong}')} is {state}")
    _check_layer(path, config.get("layers_to_transform"))
    a, b = (
        found[name] for name in names
    )  # [r, in], [out, r]; an embedding's the other way round: in is the vocabulary
    r = rank(_pattern(config, "rank_pattern", path, config.get("r")), "r")
    check_rank(a, a.shape[0] if a.shape else None, r)
    alpha = number(_pattern(config, "alpha_pattern", path, config.get("lora_alpha")), "lora_alpha")
    scale = alpha / math.sqrt(r) if config.get("use_rslora") else alpha / r
    left, right = (Factor(a, True), Factor(b, True)) if embeds else (Factor(b), Factor(a))
    magnitude = found.get("lora_magnitude_vector")
    return LowRank(left, right, scale, Factor(magnitude) if magnitude else None)


def _pattern(config: Mapping[str, object], key: str, path: str, usual: object) -> object:
    """Return what the first pattern says that the end of `path` matches, as PEFT finds it; `usual` if there is none."""
    patterns = config.get(key) or {}
    if not isinstance(patterns, Mapping):
        raise ConfigError(f"{CONFIG_NAME}: {key} is {shown(repr(patterns))}; an object is expected")
    return next((value for name, value in patterns.items() if _ends_with(path, name, key)), usual)


def _ends_with(path: str, name: str, key: str) -> bool:
    """Whether `path` ends with the names of `name`; ``^`` stands for its beginning."""
    plain = name.removeprefix("^").replace("\\.", ".")
    if not re.fullmatch(r"\w+(\.\w+)*", plain, re.ASCII):
        raise ConfigError(f"{CONFIG_NAME}: {key} has the pattern {shown(name)}; only names of modules are supported")
    return path == plain or (not name.startswith("^") and path.endswith(f".{plain}"))


def _check_layer(path: str, layers: object) -> None:
    match = LAYER.match(path)
    if layers is not None and match and int(match[1]) not in _numbers(layers):
        raise CheckpointError(f"the adapter has tensors of {shown(path)}, which layers_to_transform leaves out")


def _numbers(layers: object) -> Iterator[int]:
    for layer in layers if isinstance(layers, list) else [layers]:
        if type(layer) is not int:
            raise ConfigError(f"{CONFIG_NAME}: layers_to_transform is {shown(repr(layers))}; numbers are expected")
        yield layer

"""How weights are packed: the modes of MLX, and what config.json says of a model's modules."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from mistral_mlx.errors import ConfigError, either, shown

from .wrappers import Config as Config
from .wrappers import text_name

# The bits and group sizes of every mode of MLX, the defaults first.
MODES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "affine": ((4, 2, 3, 5, 6, 8), (64, 32, 128)),
    "mxfp4": ((4,), (32,)),
    "mxfp8": ((8,), (32,)),
    "nvfp4": ((4,), (16,)),
}
RULE_KEYS = ("bits", "group_size")


class Packing(NamedTuple):
    """How a weight is packed, in MLX's words."""

    bits: int
    group_size: int
    mode: str = "affine"

    def as_config(self) -> dict[str, object]:
        """Return the entry of ``quantization`` in config.json."""
        return {"group_size": self.group_size, "bits": self.bits, "mode": self.mode}


@dataclass(frozen=True)
class QuantizationArgs:
    """How packed weights are stored: the same for all modules but those in `per_module`."""

    usual: Packing
    per_module: Mapping[str, Packing] = field(default_factory=dict)  # by path

    @classmethod
    def from_config(cls, config: Config) -> "QuantizationArgs | None":
        """Return what ``quantization`` (or MLX's copy ``quantization_config``) says; None for plain weights."""
        key = "quantization" if config.get("quantization") else "quantization_config"
        value = config.get(key)
        if not value:
            return None
        if not isinstance(value, Mapping):
            raise ConfigError(f"config.json: {key} must be an object, not {shown(value)}")
        if "quant_method" in value:
            raise ConfigError(
                f"config.json: {key}.quant_method {shown(repr(value['quant_method']))} is not read as it is; "
                "convert it first: mistral-mlx convert FOLDER"
            )
        modules = {
            plain: _packing(rule, f"{key}.{path}")
            for path, rule in value.items()
            if isinstance(rule, Mapping) and (plain := text_name(path)) is not None
        }
        return cls(_packing(value, key), modules)

    def of(self, path: str) -> Packing:
        """Return how the module at `path` is packed."""
        return self.per_module.get(path, self.usual)


def _packing(rule: Config, where: str) -> Packing:
    """Return what an entry of ``quantization`` says; bits and group size default to those of the mode, as in MLX."""
    mode = rule.get("mode", "affine")
    if not isinstance(mode, str) or mode not in MODES or rule.get("global_scale"):
        raise ConfigError(f"config.json: {where} is {shown(dict(rule))}; mode {', '.join(MODES)} are supported")
    allowed = MODES[mode]
    bits, group_size = (
        default if rule.get(key) is None else rule[key] for key, (default, *_) in zip(RULE_KEYS, allowed, strict=True)
    )
    if type(bits) is not int or bits not in allowed[0] or type(group_size) is not int or group_size not in allowed[1]:
        raise ConfigError(
            f"config.json: {where} is {shown(dict(rule))}; mode '{mode}' has bits {either(allowed[0])} "
            f"and group_size {either(allowed[1])}"
        )
    return Packing(bits, group_size, mode)

"""What config.json says of rotary positions, in the spellings of transformers 4 and 5; parsed and checked."""

from collections.abc import Mapping
from dataclasses import dataclass

from mistral_mlx.errors import ConfigError, shown
from mistral_mlx.files.keys import Keys
from mistral_mlx.kernels import QueryScale

from .packing import Config
from .rope import Llama3, Yarn, attention_factor

SPELLINGS = ("rope_parameters", "rope_scaling")  # of transformers 5 and 4
THETA = 10_000.0  # where neither a config nor its family says it

TYPE_KEYS = ("rope_type", "type")
COMMON = frozenset({*TYPE_KEYS, "rope_theta", "max_position_embeddings", "finetuned", "partial_rotary_factor"})
KEYS = {
    "default": COMMON,
    "yarn": COMMON
    | frozenset(
        """factor original_max_position_embeddings beta_fast beta_slow mscale mscale_all_dim attention_factor truncate
        apply_yarn_scaling""".split()
    ),
    "llama3": COMMON | frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
}
QUERY_SCALE_KEYS = frozenset({"llama_4_scaling_beta", "original_max_position_embeddings"})


@dataclass(frozen=True)
class Rope:
    """Rotary positions of a model, and what its queries are multiplied by."""

    theta: float
    scaling: Yarn | Llama3 | None = None
    query_scale: QueryScale | None = None


def read_rope(config: Config, *, positions: int, has_query_scale: bool, usual_theta: float = THETA) -> Rope:
    """Return what `config` says, which is for so many `positions`.

    Raises ConfigError naming a key that is unknown, out of range, or disagrees with another one.
    """
    top = Keys(config, "config.json: ", ConfigError)
    thetas = [] if config.get("rope_theta") is None else [top.positive("rope_theta")]
    parts = [_Part(config[key], key, positions) for key in SPELLINGS if config.get(key) is not None]
    thetas += [part.theta for part in parts if part.theta is not None]
    if len(set(thetas)) > 1:
        raise ConfigError(f"config.json: rope_theta {thetas[0]} and rope_parameters.rope_theta {thetas[1]} disagree")
    theta = thetas[0] if thetas else usual_theta
    found = [(part.scaling(theta), part.query_scale(allowed=has_query_scale)) for part in parts]
    if any(other != found[0] for other in found):
        raise ConfigError("config.json: rope_parameters and rope_scaling disagree; leave one of them out")
    return Rope(theta, *found[0]) if found else Rope(theta)


class _Part:
    """The object under one of the two spellings."""

    def __init__(self, value: object, key: str, positions: int) -> None:
        if not isinstance(value, Mapping):
            raise ConfigError(f"config.json: {key} {shown(value)} is not supported; an object is expected")
        kind = next((value[name] for name in TYPE_KEYS if value.get(name) is not None), "default")
        if not isinstance(kind, str) or kind not in KEYS:
            raise ConfigError(f"config.json: {key} is of type {shown(repr(kind))}; supported are {', '.join(KEYS)}")
        self.kind, self.positions = kind, positions
        self.keys = Keys(value, f"config.json: {key}.", ConfigError)
        self.keys.refuse_unknown(KEYS[kind] | QUERY_SCALE_KEYS)
        if value.get("partial_rotary_factor") not in (None, 1):
            raise self.keys.refused("partial_rotary_factor", value["partial_rotary_factor"])
        self.theta = None if value.get("rope_theta") is None else self.keys.positive("rope_theta")

    @property
    def original(self) -> int:
        """The positions that the model was trained for before. Programs have different defaults: we have none."""
        return self.keys.whole("original_max_position_embeddings")

    def scaling(self, theta: float) -> Yarn | Llama3 | None:
        """Return how plain rotations of base `theta` are scaled."""
        return {"default": self._plain, "yarn": self._yarn, "llama3": self._llama3}[self.kind](theta)

    def query_scale(self, *, allowed: bool) -> QueryScale | None:
        """Return what queries are multiplied by; of families that do not do that, none is `allowed`."""
        beta = self.keys.mapping.get("llama_4_scaling_beta")
        if not beta:
            return None
        if not allowed:
            raise self.keys.refused("llama_4_scaling_beta", beta)
        return QueryScale(self.keys.positive("llama_4_scaling_beta"), self.original)

    def _plain(self, theta: float) -> None:
        del theta  # any will do

    def _yarn(self, theta: float) -> Yarn:
        keys, given = self.keys, self.keys.mapping
        if theta <= 1:
            raise ConfigError(f"config.json: rope_theta is {theta:g}; YaRN needs more than 1")
        factor = keys.positive("factor", default=self.positions / self.original if "factor" in given else None)
        if factor < 1:
            raise keys.bad("factor", factor, "a number from 1")
        fast, slow = (keys.positive(k) if given.get(k) else d for k, d in (("beta_fast", 32.0), ("beta_slow", 1.0)))
        truncate = keys.flag("truncate")
        length = self._attention_factor(factor)
        if keys.flag("apply_yarn_scaling") is False and length != 1:
            raise ConfigError(
                f"{keys.where}apply_yarn_scaling is false, but the other keys give the attention factor {length:.6g}; "
                "one of them is wrong"
            )
        return Yarn(factor, self.original, fast, slow, length, truncate is not False)

    def _attention_factor(self, factor: float) -> float:
        keys, given = self.keys, self.keys.mapping
        if given.get("attention_factor") is not None:
            return keys.positive("attention_factor")
        if given.get("mscale") and given.get("mscale_all_dim"):
            upper, lower = keys.positive("mscale"), keys.positive("mscale_all_dim")
            return attention_factor(factor, upper) / attention_factor(factor, lower)
        return attention_factor(factor)

    def _llama3(self, theta: float) -> Llama3:
        del theta
        low, high = self.keys.positive("low_freq_factor"), self.keys.positive("high_freq_factor")
        if low >= high:
            raise self.keys.bad("high_freq_factor", high, f"a number above low_freq_factor {low:g}")
        return Llama3(self.keys.positive("factor"), low, high, self.original)

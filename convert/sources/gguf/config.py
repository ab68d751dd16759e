"""The metadata of a GGUF file in the words of Hugging Face's config.json; every key is honoured or refused by name."""

import math
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from mistral_mlx.convert.sources.text_model import rope_keys
from mistral_mlx.errors import CheckpointError, ConfigError, shown
from mistral_mlx.files.keys import MAX_WHOLE, Keys
from mistral_mlx.model.args import LIMITS, ModelArgs
from mistral_mlx.model.families import CLASSES, LATENT, STATE
from mistral_mlx.model.rope import Llama3, attention_factor, inverse_frequencies

from .header import GGUFTensor, Value

Floats = NDArray[np.float32]

ARCHITECTURES = ("llama", "mistral3")  # of one graph; the second one can scale queries
OTHER_GRAPHS = {
    "mistral4": f"Mistral Small 4 and Leanstral have {LATENT}",
    "deepseek2": f"Mistral Large 3 has {LATENT}",
    "mamba2": f"Codestral Mamba has {STATE}",
}
ROPE_FACTORS = "rope_freqs.weight"

# Keys of an architecture that are read below, or that say nothing about the graph. Any other key is refused.
READ_KEYS = frozenset(
    """block_count context_length embedding_length feed_forward_length attention.head_count attention.head_count_kv
    attention.key_length attention.value_length attention.layer_norm_rms_epsilon attention.sliding_window
    rope.freq_base rope.dimension_count vocab_size tensor_data_layout rope.scaling.finetuned expert_count
    expert_used_count""".split()
)
YARN_KEYS = frozenset(
    """rope.scaling.type rope.scaling.factor rope.scaling.original_context_length rope.scaling.attn_factor
    rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow rope.scaling.yarn_log_multiplier""".split()
)
QUERY_SCALE_KEYS = frozenset({"attention.temperature_scale", "rope.scaling.original_context_length"})
NEUTRAL_VALUES: dict[str, tuple[Value, ...]] = {  # keys that change nothing as long as they hold one of these
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (0.0, 1.0),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.yarn_log_multiplier": (0.0,),
    "rope.scaling.yarn_ext_factor": (-1.0, 1.0),  # of YaRN, whether it is on
    "rope.scaling.yarn_attn_factor": (1.0,),
    "rope.scale_linear": (0.0, 1.0),
    "attention.causal": (True,),
    "attention.temperature_scale": (0.0,),
}
LLAMA3 = (1.0, 4.0, 8192)  # low and high of all models that have it; original positions of most


def config_of(
    meta: Mapping[str, Value], tensors: Mapping[str, GGUFTensor], factors: Floats | None
) -> dict[str, object]:
    """Return a config.json that says the same; `factors` divide the frequencies of rotary positions.

    Raises ConfigError naming a key, or CheckpointError, if the file asks for what is not supported.
    """
    keys = Meta(meta)
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError("tensor token_embd.weight is missing")
    dim, n_heads = keys.whole("embedding_length"), keys.whole("attention.head_count")
    head_dim = keys.whole("attention.key_length", dim // n_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if keys.whole(key, head_dim) != head_dim:
            raise ConfigError(
                f"{keys.where}{key} is {shown(keys.mapping[key])}; only the head size {head_dim} is supported"
            )
    window = keys.whole("attention.sliding_window", 0)
    theta = keys.number("rope.freq_base", 10_000.0)
    rope = keys.rope()
    experts = keys.experts()
    family = "mixtral" if experts else keys.family(rope, window)
    if factors is not None:
        if rope:
            raise CheckpointError(f"tensor {ROPE_FACTORS} and {keys.where}rope.scaling both scale rotary positions")
        rope = _llama3(factors, head_dim, theta)
    config = {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": dim,
        "intermediate_size": keys.whole("feed_forward_length"),
        "num_hidden_layers": keys.whole("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": keys.whole("attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "rms_norm_eps": keys.number("attention.layer_norm_rms_epsilon"),
        "rope_theta": theta,
        "max_position_embeddings": keys.whole("context_length"),
        "vocab_size": keys.whole("vocab_size", embedding.shape[0]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": {"F32": "float32", "BF16": "bfloat16"}.get(embedding.kind, "float16"),
        **({} if family == "llama" else {"sliding_window": window or None}),
        **({"rope_scaling": rope} if rope else {}),
        **experts,
    }
    return config | (rope_keys(config, ModelArgs.from_config(config)) if rope else {})


class Meta:
    """The keys of a file's architecture. Every refusal names the key as it is in the file."""

    def __init__(self, meta: Mapping[str, Value]) -> None:
        self.architecture = architecture = meta.get("general.architecture")
        if isinstance(architecture, str) and architecture in OTHER_GRAPHS:
            raise ConfigError(
                f"general.architecture {shown(architecture)} is not supported: {OTHER_GRAPHS[architecture]}"
            )
        if architecture not in ARCHITECTURES:
            known = " and ".join(map(repr, ARCHITECTURES))
            raise ConfigError(f"general.architecture {shown(architecture)} is not supported; only {known} are")
        self.where = f"{architecture}."
        self.mapping = {k.removeprefix(self.where): v for k, v in meta.items() if k.startswith(self.where)}
        self.keys = Keys(self.mapping, self.where, ConfigError)
        is_yarn = self.mapping.get("rope.scaling.type") == "yarn"
        read = READ_KEYS | (YARN_KEYS if is_yarn else set()) | (QUERY_SCALE_KEYS if self._scales_queries else set())
        for key, value in self.mapping.items():
            if key not in read and value not in NEUTRAL_VALUES.get(key, ()):
                raise self.keys.refused(key, value)

    @property
    def _scales_queries(self) -> bool:
        return self.architecture == "mistral3" and bool(self.mapping.get("attention.temperature_scale"))

    def whole(self, key: str, default: int | None = None) -> int:
        """Return a whole number, or what a list of one for each layer says, if that is the same for all."""
        value = self.mapping.get(key, default)
        if isinstance(value, list) and value and len(set(value)) == 1:
            value = value[0]
        return self.keys.checked_whole(key, value, low=1 if default is None else 0)

    def number(self, key: str, default: float | None = None) -> float:
        """Return a number as it was before it was stored in float32: 9.999999747378752e-06 was written as 1e-05."""
        value = self.mapping.get(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.keys.bad(key, value, "a number")
        with np.errstate(over="ignore"):  # an infinity is refused as a value of config.json
            return float(str(np.float32(value)))

    def rope(self) -> dict[str, object] | None:
        """Return how rotary positions and queries are scaled, as ``rope_scaling`` in config.json."""
        is_yarn = self.mapping.get("rope.scaling.type") == "yarn"
        if not is_yarn and not self._scales_queries:
            return None
        rope: dict[str, object] = {
            "rope_type": "yarn" if is_yarn else "default",
            "original_max_position_embeddings": self.whole("rope.scaling.original_context_length"),
        }
        if self._scales_queries:
            rope["llama_4_scaling_beta"] = self.number("attention.temperature_scale")
        return rope | (self._yarn() if is_yarn else {})

    def experts(self) -> dict[str, object]:
        """Return the keys of a mixture of experts in config.json; none if the model has a single feed-forward."""
        used = self.mapping.get("expert_used_count")
        if not self.mapping.get("expert_count"):
            if used:
                raise self.keys.refused("expert_used_count", used)
            return {}
        n_experts = self.keys.whole("expert_count", high=LIMITS["num_local_experts"])
        n_used = self.keys.whole("expert_used_count", high=n_experts)
        return {"num_local_experts": n_experts, "num_experts_per_tok": n_used}

    def family(self, rope: object, window: int) -> str:
        """Return the family of Hugging Face's that has this graph."""
        if self.architecture == "mistral3":
            return "ministral3" if rope else "mistral"
        return "mistral" if window else "llama"

    def _yarn(self) -> dict[str, object]:
        """Return the keys of YaRN. llama.cpp takes mscale as 1, and the multiplier of logarithms as mscale_all_dim."""
        factor, extra = self.number("rope.scaling.factor"), self.number("rope.scaling.attn_factor", 1.0)
        multiplier = self.number("rope.scaling.yarn_log_multiplier", 0.0)
        if multiplier < 0:
            raise self.keys.bad("rope.scaling.yarn_log_multiplier", multiplier, "a number from 0")
        length: dict[str, object] = {"mscale": 1.0, "mscale_all_dim": multiplier}
        if extra != 1:
            length = {
                "attention_factor": extra
                * attention_factor(factor)
                / (attention_factor(factor, multiplier) if multiplier else 1.0)
            }
        return {
            "factor": factor,
            "beta_fast": self.number("rope.scaling.yarn_beta_fast", 32.0),
            "beta_slow": self.number("rope.scaling.yarn_beta_slow", 1.0),
            **length,
        }


def _llama3(factors: Floats, head_dim: int, theta: float) -> dict[str, object]:
    """Return ``rope_scaling`` of the Llama 3 models, if it is what `factors` of frequencies are."""
    low, high, _ = LLAMA3
    factor = float(factors.max())
    plain = inverse_frequencies(head_dim, theta)
    with np.errstate(all="ignore"):  # of numbers that are damaged
        if 1 < factor < math.inf and factors.shape == plain.shape:
            original = _original(factors, plain)
            scaled = Llama3(factor, low, high, original).scaled(plain, theta)
            if np.allclose(plain / scaled, factors, rtol=1e-5, atol=0):
                return {
                    "rope_type": "llama3",
                    "factor": factor,
                    "low_freq_factor": low,
                    "high_freq_factor": high,
                    "original_max_position_embeddings": original,
                }
    raise CheckpointError(
        f"tensor {ROPE_FACTORS} scales the rotary frequencies, and not as Llama 3 does, which is not supported"
    )


def _original(factors: Floats, plain: NDArray[np.float64]) -> int:
    """Return the positions in which a pair on the ramp turns so often that its factor is the one given."""
    low, high, usual = LLAMA3
    least = 1 / float(factors.max())
    kept = (1 / factors.astype(np.float64) - least) / (1 - least)  # of the frequency
    turns = (low + kept * (high - low))[(kept > 0.01) & (kept < 0.99)]
    found = turns * 2 * math.pi / plain[(kept > 0.01) & (kept < 0.99)]
    return round(float(np.median(found))) if len(found) and 1 <= np.median(found) < MAX_WHOLE else usual

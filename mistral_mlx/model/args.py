"""The hyper-parameters of a model, parsed and checked from config.json."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass

from mistral_mlx.errors import ConfigError, shown
from mistral_mlx.kernels import QueryScale

from .blocks import EMBEDDING, FINAL_NORM, HEAD, block, module_path
from .families import FAMILY_DEFAULTS, MINISTRAL3_ROPE, MIXTURES, QUERY_SCALES, THETAS, family_of
from .packing import Config, QuantizationArgs
from .rope import Llama3, Yarn
from .rope_config import SPELLINGS, THETA, read_rope
from .wrappers import text_part

LIMITS = {"num_hidden_layers": 1024, "vocab_size": 1 << 22, "num_local_experts": 256}
MAX_EXPERTS = 1 << 14  # in all layers together: 36 times as many as Mixtral 8x22B has
MAX_SIZE = 1 << 20  # of any other dimension: far above every real model, far below what overflows
MAX_POSITIONS = (1 << 31) - 1  # what an int of the kernels holds

# Keys whose name says that they may change the graph. Those we read are listed; any other must be neutral.
_MATTERS = re.compile(
    r"rope|rotary|attention|attn|expert|moe|window|norm|scal|bias|softcap|head|layer_types|multiplier|hidden_act|clip|"
    r"partial|residual|parallel|mlp|model_file|auto_map"
)
_READ = frozenset(
    """num_attention_heads num_key_value_heads head_dim rms_norm_eps rope_theta rope_parameters rope_scaling
    sliding_window layer_types hidden_act attention_dropout attn_implementation use_flash_attention_2""".split()
)
_READ_OF_MIXTURES = frozenset({"num_local_experts", "num_experts_per_tok"})


@dataclass(frozen=True)
class ModelArgs:
    """Hyper-parameters under Mistral's own short names; `from_config` reads HF's ``config.json``."""

    dim: int
    n_layers: int
    n_heads: int
    n_kv_heads: int
    head_dim: int
    hidden_dim: int
    norm_eps: float
    vocab_size: int
    rope_theta: float
    sliding_window: tuple[int | None, ...]  # one per layer, in tokens; None attends to everything
    max_position_embeddings: int  # the positions RoPE was trained for
    model_type: str = "mistral"
    tie_word_embeddings: bool | None = None  # None: the config does not say; the weights decide
    dtype: str | None = None  # as the config names it: float16, bfloat16, float32
    bos_token_id: int | None = None
    eos_token_ids: frozenset[int] = frozenset()
    quantization: QuantizationArgs | None = None
    rope_scaling: Yarn | Llama3 | None = None
    query_scale: QueryScale | None = None
    n_experts: int = 0  # of the feed-forward; 0: it is a single one
    n_experts_per_token: int = 0
    # Of the cache, as `CacheOptions` chooses them; config.json knows none of them.
    kv_bits: int = 16
    sinks: int = 0  # first positions that stay in sight of a window shorter than the trained one
    config_windows: tuple[int | None, ...] | None = None  # `sliding_window` before it was chosen; None: it was not

    @classmethod
    def from_config(cls, config: Config) -> "ModelArgs":
        """Parse an HF config.

        Raises ConfigError naming the key that is missing, out of range, unknown and meaningful, or unsupported.
        """
        outer, config = config, text_part(config)
        model_type = family_of(config, outer)
        _refuse_unknown(config, _READ | _READ_OF_MIXTURES if model_type in MIXTURES else _READ)
        known = {**FAMILY_DEFAULTS[model_type], **config}
        dim, n_heads = _size(known, "hidden_size"), _size(known, "num_attention_heads")
        n_kv_heads = _size(known, "num_key_value_heads", default=n_heads)
        n_layers = _size(known, "num_hidden_layers")
        if n_heads % n_kv_heads:
            raise ConfigError(
                f"config.json: num_attention_heads {n_heads} is not a multiple of num_key_value_heads {n_kv_heads}"
            )
        head_dim = _head_dim(known, dim, n_heads)
        positions = _count(known["max_position_embeddings"], "max_position_embeddings", MAX_POSITIONS)
        if model_type == "ministral3" and all(known.get(key) is None for key in SPELLINGS):
            known["rope_parameters"] = MINISTRAL3_ROPE
        rope = read_rope(
            known,
            positions=positions,
            has_query_scale=model_type in QUERY_SCALES,
            usual_theta=THETAS.get(model_type, THETA),
        )
        n_experts, n_used = _experts(known, n_layers) if model_type in MIXTURES else (0, 0)
        _count(n_heads * head_dim, "num_attention_heads times head_dim", MAX_SIZE)
        return cls(
            dim=dim,
            n_layers=n_layers,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=head_dim,
            hidden_dim=_size(known, "intermediate_size"),
            norm_eps=_positive(known.get("rms_norm_eps", 1e-6), "rms_norm_eps"),
            vocab_size=_size(known, "vocab_size"),
            rope_theta=rope.theta,
            sliding_window=_windows(known, model_type, n_layers),
            max_position_embeddings=positions,
            model_type=model_type,
            tie_word_embeddings=_flag(known, "tie_word_embeddings"),
            dtype=_dtype(known, outer),
            bos_token_id=next(iter(_token_ids(known, "bos_token_id")), None),
            eos_token_ids=_token_ids(known, "eos_token_id") | _token_ids(outer, "eos_token_id"),
            quantization=QuantizationArgs.from_config(config) or QuantizationArgs.from_config(outer),
            rope_scaling=rope.scaling,
            query_scale=rope.query_scale,
            n_experts=n_experts,
            n_experts_per_token=n_used,
        )

    @property
    def context_limit(self) -> int | None:
        """The positions a model can take; None if every layer was trained with a window, which knows no end."""
        return self.max_position_embeddings if None in self.trained_windows else None

    @property
    def trained_windows(self) -> tuple[int | None, ...]:
        """The window of each layer as config.json has it, where `sliding_window` may be a shorter one."""
        return self.sliding_window if self.config_windows is None else self.config_windows


def expected_shapes(args: ModelArgs) -> dict[str, tuple[int, ...]]:
    """Return the shape of every unpacked weight by its HF name, the untied ``lm_head.weight`` included."""
    sizes = {
        "dim": args.dim,
        "hidden": args.hidden_dim,
        "experts": args.n_experts,
        "queries": args.n_heads * args.head_dim,
        "keys": args.n_kv_heads * args.head_dim,
    }
    modules = [(module, tuple(sizes[word] for word in module.shape)) for module in block(args.n_experts)]
    shapes: dict[str, tuple[int, ...]] = {f"{EMBEDDING}.weight": (args.vocab_size, args.dim)}
    for layer in range(args.n_layers):
        shapes |= {f"{module_path(layer, module)}.weight": shape for module, shape in modules}
    return shapes | {f"{FINAL_NORM}.weight": (args.dim,), f"{HEAD}.weight": (args.vocab_size, args.dim)}


def _refuse_unknown(config: Config, read: frozenset[str]) -> None:
    for key, value in config.items():
        # A leading underscore is how transformers writes what only concerns itself.
        if _MATTERS.search(key) and key not in read and not key.startswith("_") and not _is_neutral(key, value):
            raise ConfigError(f"config.json: {shown(key)} is {shown(value)}, which this program does not implement")
    if (act := config.get("hidden_act", "silu")) != "silu":
        raise ConfigError(f"config.json: hidden_act {shown(act)} is not supported; only 'silu' is")


def _is_neutral(key: str, value: object) -> bool:
    """Whether a setting that this program does not know leaves the graph as it is: off, absent, or times one."""
    return value is not True and (not value or (value == 1 and "expert" not in key))


def _size(config: Config, key: str, *, default: int | None = None) -> int:
    value = config.get(key, default)
    if value is None:
        if default is None:
            raise ConfigError(f"config.json: {key} is missing")
        return default
    return _count(value, key, LIMITS.get(key, MAX_SIZE))


def _count(value: object, key: str, limit: int) -> int:
    if type(value) is not int or not 1 <= value <= limit:
        raise ConfigError(f"config.json: {key} is {shown(repr(value))}; a whole number from 1 to {limit} is expected")
    return value


def _positive(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
        raise ConfigError(f"config.json: {key} is {shown(repr(value))}; a positive number is expected")
    return float(value)


def _flag(config: Config, key: str) -> bool | None:
    value = config.get(key)
    if value is not None and not isinstance(value, bool):
        raise ConfigError(f"config.json: {key} is {shown(repr(value))}; true or false is expected")
    return value


def _head_dim(config: Config, dim: int, n_heads: int) -> int:
    if config.get("head_dim") is None and dim % n_heads:
        raise ConfigError(
            f"config.json: head_dim is absent and hidden_size {dim} is not a multiple of num_attention_heads {n_heads}"
        )
    head_dim = _size(config, "head_dim", default=dim // n_heads)
    if head_dim % 2:
        raise ConfigError(f"config.json: head_dim {head_dim} is odd; rotary embeddings need an even one")
    return head_dim


def _experts(config: Config, n_layers: int) -> tuple[int, int]:
    """Return how many experts there are in a layer, and how many of them each token uses."""
    n_experts, n_used = _size(config, "num_local_experts"), _size(config, "num_experts_per_tok")
    if n_used > n_experts:
        raise ConfigError(f"config.json: num_experts_per_tok {n_used} is more than num_local_experts {n_experts}")
    if n_layers * n_experts > MAX_EXPERTS:
        raise ConfigError(
            f"config.json: num_local_experts {n_experts} in num_hidden_layers {n_layers} are {n_layers * n_experts} "
            f"experts; at most {MAX_EXPERTS} are expected"
        )
    return n_experts, n_used


def _windows(config: Config, model_type: str, n_layers: int) -> tuple[int | None, ...]:
    """Return the window of each layer from ``sliding_window`` and ``layer_types``.

    A list is a pattern repeated over the layers, as in Mistral's params.json; with ``layer_types``, a single window
    holds for the layers called "sliding_attention".
    """
    value, types = config.get("sliding_window"), config.get("layer_types")
    if isinstance(value, list):
        if types is not None or not value or n_layers % len(value):
            raise ConfigError(f"config.json: sliding_window {shown(value)} cannot be laid over {n_layers} layers")
        return tuple(_window(w) for w in value) * (n_layers // len(value))
    window = _window(value)
    if types is not None:
        return tuple(_typed_windows(types, window, n_layers))
    if model_type == "llama" and window is not None:
        raise ConfigError(
            f"config.json: sliding_window {window} without layer_types has no meaning for model_type 'llama'"
        )
    return (window,) * n_layers


def _window(value: object) -> int | None:
    return None if value is None else _count(value, "sliding_window", MAX_POSITIONS)


def _typed_windows(types: object, window: int | None, n_layers: int) -> Iterator[int | None]:
    if not isinstance(types, list) or len(types) != n_layers:
        raise ConfigError(f"config.json: layer_types must list {n_layers} layers")
    for kind in types:
        if kind not in ("full_attention", "sliding_attention"):
            raise ConfigError(f"config.json: layer_types has {shown(kind)}, which is not supported")
        if kind == "sliding_attention" and window is None:
            raise ConfigError("config.json: layer_types has 'sliding_attention', but sliding_window is null")
        yield window if kind == "sliding_attention" else None


def _dtype(config: Config, outer: Config) -> str | None:
    found = [c[key] for c in (config, outer) for key in ("dtype", "torch_dtype") if isinstance(c.get(key), str)]
    return str(found[0]).removeprefix("torch.") if found else None


def _token_ids(config: Config, key: str) -> frozenset[int]:
    """Return the ids under `key`, which configs give as a number, a list or null."""
    value = config.get(key)
    ids = value if isinstance(value, list) else [] if value is None else [value]
    for n in ids:
        if type(n) is not int or n < 0:
            raise ConfigError(f"config.json: {key} is {shown(value)}; a token id or a list of them is expected")
    return frozenset(ids)

"""params.json in the words of Hugging Face's config.json; every key is honoured or refused by its name."""

import sys
from collections.abc import Mapping

from mistral_mlx.errors import ConfigError, shown
from mistral_mlx.model.args import LIMITS, MAX_POSITIONS

Params = Mapping[str, object]

MODEL_TYPES = ("transformer", "mistral")  # mistral-inference's own word, and what others write
HARMLESS = ("max_batch_size", "dtype", "torch_dtype")  # the weights have a dtype of their own
# Above these, mistral-inference turns with a base of 10**6; its first versions, made for 7B v0.1, with 10**4 if there
# is a window. v0.1 is the one model whose params.json leaves the base out.
THETA, WINDOWED_THETA = 1_000_000.0, 10_000.0
POSITIONS = 32_768  # as transformers' converter assumes
BOS_ID, EOS_ID = 1, 2  # of every tokenizer of Mistral's

READ_KEYS = frozenset(
    """dim n_layers head_dim hidden_dim n_heads n_kv_heads norm_eps vocab_size rope_theta sliding_window
    _sliding_window max_seq_len max_position_embeddings tied_embeddings tie_word_embeddings model_type vision_encoder
    activation quantization""".split()
)


def to_config(params: Params, *, dtype: str, tied: bool) -> dict[str, object]:
    """Return a config.json that says the same; `tied` if there is no head, `dtype` is the embedding's.

    Raises ConfigError naming the key that is missing, out of range or not implemented.
    """
    _refuse_unknown(params)
    dim, n_heads = _whole(params, "dim"), _whole(params, "n_heads")
    n_layers = _whole(params, "n_layers", limit=LIMITS["num_hidden_layers"])
    if "head_dim" not in params and dim % n_heads:
        raise ConfigError(f"params.json: head_dim is absent and dim {dim} is not a multiple of n_heads {n_heads}")
    window = _either(params, "sliding_window", "_sliding_window")
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": "mistral",
        "hidden_act": "silu",
        "hidden_size": dim,
        "intermediate_size": _whole(params, "hidden_dim"),
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": _whole(params, "n_kv_heads", n_heads),
        "head_dim": _whole(params, "head_dim", dim // n_heads),
        "rms_norm_eps": _positive(params, "norm_eps"),
        "rope_theta": _positive(params, "rope_theta", WINDOWED_THETA if window else THETA),
        "max_position_embeddings": _positions(params),
        "vocab_size": _whole(params, "vocab_size"),
        "tie_word_embeddings": _tied(params, tied),
        "torch_dtype": {"F32": "float32", "BF16": "bfloat16"}.get(dtype, "float16"),
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
    } | _windows(window, n_layers)


def _refuse_unknown(params: Params) -> None:
    for key, value in params.items():
        if key not in READ_KEYS and key not in HARMLESS and value:
            raise ConfigError(f"params.json: {shown(key)} is {shown(value)}, which this program does not implement")
    if (kind := params.get("model_type", "transformer")) not in MODEL_TYPES:
        raise ConfigError(f"params.json: model_type {shown(kind)} is not supported; only 'transformer' is")
    if (rule := params.get("quantization")) and not isinstance(rule, Mapping):
        raise ConfigError(f"params.json: quantization is {shown(rule)}; an object is expected")
    if (act := params.get("activation", "silu")) != "silu":
        raise ConfigError(f"params.json: activation {shown(act)} is not supported; only 'silu' is")


def _windows(window: object, n_layers: int) -> dict[str, object]:
    """Return the window as other programs know it: one number, and which layers have it if not all do.

    A list is a pattern repeated over the layers. What names several windows stays a list, which this program knows.
    """
    if not isinstance(window, list):
        return {"sliding_window": _window(window)}
    if not window or n_layers % len(window):
        raise ConfigError(f"params.json: sliding_window {shown(window)} cannot be laid over {n_layers} layers")
    widths = [_window(value) for value in window] * (n_layers // len(window))
    different = {width for width in widths if width is not None}
    if len(different) > 1:
        return {"sliding_window": widths}
    if None not in widths or not different:
        return {"sliding_window": widths[0]}
    types = ["full_attention" if width is None else "sliding_attention" for width in widths]
    return {"sliding_window": different.pop(), "layer_types": types}


def _window(value: object) -> int | None:
    if value is not None and (type(value) is not int or value < 1):
        raise ConfigError(
            f"params.json: sliding_window is {shown(repr(value))}; a whole number from 1 or null is expected"
        )
    return value


def _positions(params: Params) -> int:
    if "max_position_embeddings" in params:
        return _whole(params, "max_position_embeddings")
    return _whole(params, "max_seq_len", POSITIONS)


def _tied(params: Params, tied: bool) -> bool:
    said = _either(params, "tied_embeddings", "tie_word_embeddings")
    if said is not None and not isinstance(said, bool):
        raise ConfigError(f"params.json: tied_embeddings is {shown(repr(said))}; true or false is expected")
    return tied if said is None else said


def _either(params: Params, first: str, second: str) -> object:
    """Return the value of a key that has two names. Raises ConfigError if both are given and differ."""
    values = [params[key] for key in (first, second) if params.get(key) is not None]
    if len(values) == 2 and values[0] != values[1]:
        raise ConfigError(f"params.json: {first} {shown(values[0])} and {second} {shown(values[1])} disagree")
    return values[0] if values else None


def _whole(params: Params, key: str, default: int | None = None, *, limit: int = MAX_POSITIONS) -> int:
    value = params.get(key, default)
    if type(value) is not int or not 1 <= value <= limit:
        what = "is missing" if key not in params else f"is {shown(repr(value))}"
        raise ConfigError(f"params.json: {key} {what}; a whole number from 1 to {limit} is expected")
    return value


def _positive(params: Params, key: str, default: float | None = None) -> float:
    value = params.get(key)
    value = default if value is None else value
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
        what = "is missing" if value is None else f"is {shown(repr(value))}"
        raise ConfigError(f"params.json: {key} {what}; a positive number is expected")
    return float(value)

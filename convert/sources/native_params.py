"""params.json in the words of Hugging Face's config.json; every key is honoured or refused by its name."""

import re
from collections.abc import Mapping

from mistral_mlx.errors import ConfigError, shown
from mistral_mlx.files.keys import Keys
from mistral_mlx.model.args import LIMITS, ModelArgs
from mistral_mlx.model.families import AUDIO, CLASSES, LATENT, STATE

from .text_model import rope_keys

Params = Mapping[str, object]

MODEL_TYPES = ("transformer", "mistral")  # mistral-inference's own word, and what others write
HARMLESS = frozenset({"max_batch_size", "model_parallel", "dtype", "torch_dtype"})  # weights have their own dtype
# Above these, mistral-inference turns with a base of 10**6; its first versions, made for 7B v0.1, with 10**4 if there
# is a window. v0.1 is the one model whose params.json leaves the base out.
THETA, WINDOWED_THETA = 1_000_000.0, 10_000.0
POSITIONS = 32_768  # as transformers' converter assumes
BOS_ID, EOS_ID = 1, 2  # of every tokenizer of Mistral's

MULTIMODAL = ("vision_encoder", "multimodal")  # keys of what is beside a text model
READ_KEYS = frozenset(
    """dim n_layers head_dim hidden_dim n_heads n_kv_heads norm_eps vocab_size rope_theta sliding_window
    _sliding_window max_seq_len max_position_embeddings model_max_length tied_embeddings tie_word_embeddings model_type
    activation quantization causal yarn llama_4_scaling moe""".split()
) | frozenset(MULTIMODAL)
YARN_KEYS = frozenset({"factor", "beta", "alpha", "original_max_position_embeddings", "apply_scale"})
MOE_KEYS = frozenset({"num_experts", "num_experts_per_tok"})
QUERY_SCALE_KEYS = frozenset({"beta", "original_max_position_embeddings"})

LATENT_MODELS = f"Mistral Large 3, Large 4, Small 4 and Leanstral have {LATENT}"
OTHER_GRAPHS = {  # keys of models that have another graph
    **dict.fromkeys(("kv_lora_rank", "q_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim"), LATENT_MODELS),
    "ada_rms_norm_t_cond": f"Voxtral Realtime has {AUDIO}",
}
SPEECH = ("audio_model_args", "audio_tokenizer_args", "audio_generation_args")  # of `multimodal`


def to_config(params: Params, *, dtype: str, tied: bool) -> dict[str, object]:
    """Return a config.json that says the same; `tied` if there is no head, `dtype` is the embedding's.

    Raises ConfigError naming the key that is missing, out of range or not implemented.
    """
    keys = Keys(params, "params.json: ", ConfigError)
    _refuse_unknown(keys)
    dim, n_heads = keys.whole("dim"), keys.whole("n_heads")
    n_layers = keys.whole("n_layers", high=LIMITS["num_hidden_layers"])
    if params.get("head_dim") is None and dim % n_heads:
        raise ConfigError(f"params.json: head_dim is absent and dim {dim} is not a multiple of n_heads {n_heads}")
    window = _either(params, "sliding_window", "_sliding_window")
    rope = _rope(keys)
    experts = _experts(keys)
    if rope and experts:
        raise ConfigError("params.json: moe together with yarn or llama_4_scaling is not supported")
    family = "mixtral" if experts else "ministral3" if rope else "mistral"
    config = {
        "architectures": [CLASSES[family]],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": dim,
        "intermediate_size": keys.whole("hidden_dim"),
        "num_hidden_layers": n_layers,
        "num_attention_heads": n_heads,
        "num_key_value_heads": keys.whole("n_kv_heads", default=n_heads),
        "head_dim": keys.whole("head_dim", default=dim // n_heads),
        "rms_norm_eps": keys.positive("norm_eps"),
        "rope_theta": keys.positive("rope_theta", default=WINDOWED_THETA if window else THETA),
        "max_position_embeddings": _positions(keys),
        "vocab_size": keys.whole("vocab_size"),
        "tie_word_embeddings": _tied(params, tied),
        "torch_dtype": {"F32": "float32", "BF16": "bfloat16"}.get(dtype, "float16"),
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        **_windows(keys, window, n_layers),
        **({"rope_parameters": rope} if rope else {}),
        **experts,
    }
    return config | (rope_keys(config, ModelArgs.from_config(config)) if rope else {})


def _refuse_unknown(keys: Keys) -> None:
    _refuse_other_graphs(keys)
    keys.refuse_unknown(READ_KEYS | HARMLESS)
    params = keys.mapping
    for key in ("quantization", *MULTIMODAL):
        if params.get(key):
            keys.entries(key)
    if params.get("causal", True) is not True:
        raise keys.refused("causal", params["causal"])
    if (kind := params.get("model_type", "transformer")) not in MODEL_TYPES:
        raise ConfigError(f"params.json: model_type {shown(kind)} is not supported; only 'transformer' is")
    if (act := params.get("activation", "silu")) != "silu":
        raise ConfigError(f"params.json: activation {shown(act)} is not supported; only 'silu' is")


def _refuse_other_graphs(keys: Keys) -> None:
    """Raise ConfigError for a model of Mistral AI's that has another graph, with its name."""
    params = keys.mapping
    for key, why in OTHER_GRAPHS.items():
        if params.get(key):
            raise ConfigError(f"params.json: {key} is {shown(params[key])}, which is not supported: {why}")
    if params.get("model_type") == "mamba":
        raise ConfigError(f"params.json: model_type mamba is not supported: Codestral Mamba has {STATE}")
    beside = params.get("multimodal")
    if isinstance(beside, Mapping) and any(beside.get(key) for key in SPEECH):
        raise ConfigError(f"params.json: multimodal writes audio, which is not supported: Voxtral TTS has {AUDIO}")


def _rope(keys: Keys) -> dict[str, object] | None:
    """Return ``rope_parameters`` of scaled positions and queries."""
    yarn, scale = _part(keys, "yarn", YARN_KEYS), _part(keys, "llama_4_scaling", QUERY_SCALE_KEYS)
    rope: dict[str, object] = {}
    if yarn:
        lengthens = yarn.flag("apply_scale") is not False
        rope = {
            "rope_type": "yarn",
            "factor": yarn.positive("factor"),
            "original_max_position_embeddings": yarn.whole("original_max_position_embeddings"),
            "beta_fast": yarn.positive("beta", default=32.0),
            "beta_slow": yarn.positive("alpha", default=1.0),
            "mscale": 1.0,
            "mscale_all_dim": 0.0 if lengthens else 1.0,
        }
    if scale and scale.mapping.get("beta"):
        original = scale.whole("original_max_position_embeddings")
        if rope.get("original_max_position_embeddings", original) != original:
            raise ConfigError(
                f"params.json: original_max_position_embeddings of yarn and of llama_4_scaling ({original}) disagree, "
                "which config.json cannot say"
            )
        rope = {"rope_type": "default", "original_max_position_embeddings": original, **rope}
        rope["llama_4_scaling_beta"] = scale.positive("beta")
    return rope or None


def _part(keys: Keys, key: str, known: frozenset[str]) -> Keys | None:
    """Return the keys of the object under `key`; None if there is none."""
    found = keys.entries(key)
    if not found:
        return None
    part = Keys(found, f"params.json: {key}.", ConfigError)
    part.refuse_unknown(known)
    return part


def _experts(keys: Keys) -> dict[str, object]:
    """Return the keys of a mixture of experts; none if the model has a single feed-forward."""
    moe = _part(keys, "moe", MOE_KEYS)
    if moe is None:
        return {}
    n_experts = moe.whole("num_experts", high=LIMITS["num_local_experts"])
    n_used = moe.whole("num_experts_per_tok", high=n_experts)
    return {"num_local_experts": n_experts, "num_experts_per_tok": n_used}


def _windows(keys: Keys, window: object, n_layers: int) -> dict[str, object]:
    """Return the window as other programs know it: one number, and which layers have it if not all do.

    A list is a pattern repeated over the layers. What names several windows stays a list, which this program knows.
    """
    if not isinstance(window, list):
        return {"sliding_window": _window(keys, window)}
    if not window or n_layers % len(window):
        raise ConfigError(f"params.json: sliding_window {shown(window)} cannot be laid over {n_layers} layers")
    widths = [_window(keys, value) for value in window] * (n_layers // len(window))
    different = {width for width in widths if width is not None}
    if len(different) > 1:
        return {"sliding_window": widths}
    if None not in widths or not different:
        return {"sliding_window": widths[0]}
    types = ["full_attention" if width is None else "sliding_attention" for width in widths]
    return {"sliding_window": different.pop(), "layer_types": types}


def _window(keys: Keys, value: object) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[1-9]\d{0,9}", value, re.ASCII):
        value = int(value)  # as some files have it
    return None if value is None else keys.checked_whole("sliding_window", value)


def _positions(keys: Keys) -> int:
    if keys.mapping.get("max_position_embeddings") is not None:
        return keys.whole("max_position_embeddings")
    if keys.mapping.get("max_seq_len") is not None:
        return keys.whole("max_seq_len")
    return keys.whole("model_max_length", default=POSITIONS)


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

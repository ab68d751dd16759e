"""A GGUF file of the llama family as a checkpoint: names, config and row order as Hugging Face has them."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from mistral_mlx.convert.sources.entries import check_heads, ordered
from mistral_mlx.convert.sources.source import Source, SourceTensor
from mistral_mlx.convert.storage.gguf import KINDS, Gguf
from mistral_mlx.convert.storage.plain import Plain
from mistral_mlx.convert.storage.rows import FLOAT_KINDS, Storage, Stored
from mistral_mlx.errors import CheckpointError, ConfigError, shown
from mistral_mlx.files.keys import Keys
from mistral_mlx.model.args import ModelArgs

from .header import GGUFHeader, GGUFTensor, Value
from .split import read_parts
from .tokenizer import rebuild_tokenizer

GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
ROPE_FACTORS = "rope_freqs.weight"

# llama.* keys that are read below, or that say nothing about the graph. Any other key is refused.
READ_KEYS = frozenset(
    """block_count context_length embedding_length feed_forward_length attention.head_count attention.head_count_kv
    attention.key_length attention.value_length attention.layer_norm_rms_epsilon attention.sliding_window
    rope.freq_base rope.dimension_count vocab_size tensor_data_layout""".split()
)
NEUTRAL_VALUES: dict[str, tuple[Value, ...]] = {  # keys that change nothing as long as they hold one of these
    "expert_count": (0,),
    "expert_used_count": (0,),
    "rope.scaling.type": ("none",),
    "rope.scaling.factor": (0.0, 1.0),
    "rope.scaling.attn_factor": (1.0,),
    "rope.scaling.finetuned": (False,),
    "rope.scale_linear": (0.0, 1.0),
    "attention.causal": (True,),
}


def open_gguf(path: Path) -> Source:
    """Open the GGUF file at `path`.

    Raises CheckpointError or ConfigError if it is damaged, of another architecture, or asks for what is not supported.
    """
    parts = read_parts(path)
    metadata = parts[0][1].metadata
    notes: list[str] = []
    config = _config(metadata, {tensor.name: tensor for _, header in parts for tensor in header.tensors})
    tensors: dict[str, SourceTensor] = {}
    for file, header in parts:
        for name, tensor in _named(header, file, notes):
            if name in tensors:
                raise CheckpointError(f"tensor {shown(tensor.name)} is in two parts of the GGUF file")
            tensors[name] = _tensor(name, tensor, file, config)
    tokenizer = rebuild_tokenizer(metadata, notes)
    config |= tokenizer.ids
    return Source(
        path=path,
        config=config,
        args=ModelArgs.from_config(config),
        tensors=tensors,
        files=tokenizer.files,
        tokenizer_ids=tokenizer.size,
        keeps_dtypes=True,  # norms are stored in float32 beside packed or half matrices
        notes=tuple(notes),
    )


def _named(header: GGUFHeader, path: Path, notes: list[str]) -> Iterator[tuple[str, GGUFTensor]]:
    for tensor in header.tensors:
        if tensor.name == ROPE_FACTORS:
            _check_rope_factors(tensor, path)
            notes.append(f"{ROPE_FACTORS} is left out: all its factors are 1")
            continue
        if tensor.kind not in (*FLOAT_KINDS, *KINDS):
            known = ", ".join((*FLOAT_KINDS, *KINDS))
            raise CheckpointError(
                f"tensor {shown(tensor.name)} is stored as {tensor.kind}; only {known} can be converted"
            )
        yield _hf_name(tensor.name), tensor


def _hf_name(name: str) -> str:
    if name in GLOBAL_NAMES:
        return GLOBAL_NAMES[name]
    match = re.fullmatch(r"blk\.(0|[1-9]\d*)\.(\w+)\.weight", name, re.ASCII)
    if match is None or match[2] not in BLOCK_NAMES:
        raise CheckpointError(
            f"tensor {shown(name)} has no place in a llama or Mistral model; the file cannot be converted"
        )
    return f"model.layers.{match[1]}.{BLOCK_NAMES[match[2]]}.weight"


def _tensor(name: str, tensor: GGUFTensor, path: Path, config: Mapping[str, object]) -> SourceTensor:
    head_dim = config["head_dim"] if name.endswith(("q_proj.weight", "k_proj.weight")) else None
    assert head_dim is None or isinstance(head_dim, int)
    check_heads(tensor.name, tensor.shape, head_dim)
    rows = tensor.shape[0] if len(tensor.shape) == 2 else 1
    array = Stored(name, path, tensor.start, rows, tensor.nbytes // rows)
    storage: Storage = Plain(array, tensor.kind) if tensor.kind in FLOAT_KINDS else Gguf(array, tensor.kind)
    return SourceTensor(name, tensor.shape, ordered(storage, head_dim))


def _check_rope_factors(tensor: GGUFTensor, path: Path) -> None:
    if tensor.kind == "F32" and tensor.nbytes <= 1 << 20:
        factors = np.fromfile(path, "<f4", tensor.nbytes // 4, offset=tensor.start)
        if (factors == 1).all():
            return
    raise CheckpointError(f"tensor {ROPE_FACTORS} scales the rotary frequencies, which is not supported")


def _config(meta: Mapping[str, Value], tensors: Mapping[str, GGUFTensor]) -> dict[str, object]:
    if (architecture := meta.get("general.architecture")) != "llama":
        raise ConfigError(f"general.architecture {shown(architecture)} is not supported; only 'llama' is")
    llama = {key.removeprefix("llama."): value for key, value in meta.items() if key.startswith("llama.")}
    _refuse_unknown(llama)
    dim, n_heads = _whole(llama, "embedding_length"), _whole(llama, "attention.head_count")
    head_dim = _whole(llama, "attention.key_length", dim // n_heads)
    for key in ("attention.value_length", "rope.dimension_count"):
        if _whole(llama, key, head_dim) != head_dim:
            raise ConfigError(f"llama.{key} is {shown(llama[key])}; only the head size {head_dim} is supported")
    embedding = tensors.get("token_embd.weight")
    if embedding is None:
        raise CheckpointError("tensor token_embd.weight is missing")
    window = _whole(llama, "attention.sliding_window", 0)
    family = "mistral" if window else "llama"
    return {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": dim,
        "intermediate_size": _whole(llama, "feed_forward_length"),
        "num_hidden_layers": _whole(llama, "block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": _whole(llama, "attention.head_count_kv", n_heads),
        "head_dim": head_dim,
        "rms_norm_eps": _number(llama, "attention.layer_norm_rms_epsilon"),
        "rope_theta": _number(llama, "rope.freq_base", 10_000.0),
        "max_position_embeddings": _whole(llama, "context_length"),
        "vocab_size": _whole(llama, "vocab_size", embedding.shape[0]),
        "tie_word_embeddings": "output.weight" not in tensors,
        "torch_dtype": {"F32": "float32", "BF16": "bfloat16"}.get(embedding.kind, "float16"),
    } | ({"sliding_window": window} if window else {})


def _refuse_unknown(llama: Mapping[str, Value]) -> None:
    for key, value in llama.items():
        if key not in READ_KEYS and value not in NEUTRAL_VALUES.get(key, ()):
            raise _keys(llama).refused(key, value)


def _keys(llama: Mapping[str, Value]) -> Keys:
    return Keys(llama, "llama.", ConfigError)


def _whole(llama: Mapping[str, Value], key: str, default: int | None = None) -> int:
    value = llama.get(key, default)
    if isinstance(value, list) and value and len(set(value)) == 1:
        value = value[0]  # one number for each layer, and all the same
    return _keys(llama).checked_whole(key, value, low=1 if default is None else 0)


def _number(llama: Mapping[str, Value], key: str, default: float | None = None) -> float:
    value = llama.get(key, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise _keys(llama).bad(key, value, "a number")
    with np.errstate(over="ignore"):  # an infinity is refused as a value of config.json
        return float(str(np.float32(value)))  # stored in float32: 9.999999747378752e-06 was written as 1e-05

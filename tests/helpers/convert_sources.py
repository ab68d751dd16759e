"""Tiny checkpoints to convert, made from a seed: Hugging Face folders and GGUF files."""

import json
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np

from mistral_mlx.model.args import ModelArgs, expected_shapes

CONFIG: dict[str, object] = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "sliding_window": None,
    "max_position_embeddings": 512,
    "vocab_size": 64,
    "tie_word_embeddings": False,
    "torch_dtype": "float32",
}
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "block_sparse_moe.gate": "ffn_gate_inp", "block_sparse_moe.switch_mlp.gate_proj": "ffn_gate_exps",
    "block_sparse_moe.switch_mlp.up_proj": "ffn_up_exps", "block_sparse_moe.switch_mlp.down_proj": "ffn_down_exps",
}  # fmt: skip


def random_weights(config: dict[str, object], *, seed: int = 0) -> dict[str, np.ndarray]:
    """Return float32 weights for every tensor that `config` implies; a tied head has none."""
    rng = np.random.default_rng(seed)
    shapes = expected_shapes(ModelArgs.from_config(config))
    if config["tie_word_embeddings"]:
        del shapes["lm_head.weight"]
    return {name: rng.standard_normal(shape, dtype=np.float32) * 0.1 for name, shape in shapes.items()}


def write_folder(
    path: Path,
    config: dict[str, object] = CONFIG,
    *,
    weights: dict[str, mx.array] | None = None,
    shards: int = 1,
) -> Path:
    """Write a Hugging Face folder; `weights` default to random float32 ones."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config))
    if weights is None:
        weights = {name: mx.array(w) for name, w in random_weights(config).items()}
    if shards == 1:
        mx.save_safetensors(str(path / "model.safetensors"), weights)
        return path
    places = {name: f"model-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(weights)}
    for file in set(places.values()):
        mx.save_safetensors(str(path / file), {name: weights[name] for name in weights if places[name] == file})
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return path


def gguf_writer(path: Path, config: dict[str, object] = CONFIG, *, architecture: str = "llama") -> gguf.GGUFWriter:
    """Return a writer with the architecture's keys, but without tensors and tokenizer."""
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    return writer


def add_weights(
    writer: gguf.GGUFWriter,
    weights: dict[str, np.ndarray],
    kinds: dict[str, str] | str,
    config: dict[str, object] = CONFIG,
) -> dict[str, np.ndarray]:
    """Add `weights` under llama.cpp's names, in its row order; `kinds` are the matrix types.

    Returns the weights as they are after that storage, under their Hugging Face names and in its order.
    """
    stored = {}
    for name, weight in weights.items():
        kind = "F32" if weight.ndim == 1 else kinds if isinstance(kinds, str) else kinds.get(name, "F32")
        qtype = gguf.GGMLQuantizationType[kind]
        heads = {"q_proj": "num_attention_heads", "k_proj": "num_key_value_heads"}.get(name.split(".")[-2])
        rows = weight if heads is None else permuted(weight, int(config[heads]))
        data = gguf.quants.quantize(rows, qtype)
        writer.add_tensor(gguf_name(name), data, raw_dtype=qtype)
        stored[name] = gguf.quants.dequantize(gguf.quants.quantize(weight, qtype), qtype)  # blocks lie inside rows
    return stored


def permuted(weight: np.ndarray, n_heads: int) -> np.ndarray:
    """Return the rows of a query or key projection in llama.cpp's order (convert_hf_to_gguf.py)."""
    halves = weight.reshape(n_heads, 2, weight.shape[0] // n_heads // 2, *weight.shape[1:])
    return np.ascontiguousarray(halves.swapaxes(1, 2).reshape(weight.shape))


def gguf_name(name: str) -> str:
    """Return llama.cpp's name of a Hugging Face tensor."""
    if not name.startswith("model.layers."):
        return {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}[
            name[:-7]
        ] + ".weight"
    layer, rest = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.weight"


def with_tokenizer(path: Path, model: str, tokens: list[str], kinds: list[int], **keys: object) -> Path:
    """Write a GGUF file with one embedding row per token; `keys` are names without their prefix."""
    config = {**CONFIG, "vocab_size": len(tokens), "num_hidden_layers": 1}
    writer = gguf_writer(path, config)
    writer.add_tokenizer_model(model)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for key, value in keys.items():
        if key == "chat_template":
            writer.add_chat_template(value)
        elif isinstance(value, list):
            writer.add_array(f"tokenizer.ggml.{key}", value)
        else:
            add = {bool: writer.add_bool, int: writer.add_uint32, str: writer.add_string}[type(value)]
            add(f"tokenizer.ggml.{key}", value)
    add_weights(writer, random_weights(config), "Q8_0", config)
    return close(writer)


NATIVE_NAMES = {
    "self_attn.q_proj": "attention.wq", "self_attn.k_proj": "attention.wk", "self_attn.v_proj": "attention.wv",
    "self_attn.o_proj": "attention.wo", "mlp.gate_proj": "feed_forward.w1", "mlp.down_proj": "feed_forward.w2",
    "mlp.up_proj": "feed_forward.w3", "input_layernorm": "attention_norm", "post_attention_layernorm": "ffn_norm",
}  # fmt: skip
PARAMS: dict[str, object] = {
    "dim": 128, "n_layers": 2, "head_dim": 32, "hidden_dim": 256, "n_heads": 4, "n_kv_heads": 2, "norm_eps": 1e-5,
    "vocab_size": 64, "rope_theta": 10000.0, "max_position_embeddings": 512,
}  # fmt: skip


def native_name(name: str) -> str:
    """Return Mistral's own name of a Hugging Face tensor."""
    if not name.startswith("model.layers."):
        path, _, part = name.rpartition(".")
        return {"model.embed_tokens": "tok_embeddings", "model.norm": "norm", "lm_head": "output"}[path] + f".{part}"
    layer, rest = name.removeprefix("model.layers.").split(".", 1)
    path, _, part = rest.rpartition(".")
    return f"layers.{layer}.{NATIVE_NAMES[path]}.{part}"


def native_weights(weights: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return `weights` under Mistral's own names and in its row order, which llama.cpp shares."""
    heads = {"q_proj": 4, "k_proj": 2}
    return {
        native_name(name): permuted(w, heads[path]) if (path := name.split(".")[-2]) in heads and w.ndim else w
        for name, w in weights.items()
    }


def write_native(
    path: Path, params: dict[str, object] = PARAMS, *, weights: dict[str, mx.array] | None = None, shards: int = 1
) -> Path:
    """Write a folder in Mistral's own layout; `weights` default to the random ones of CONFIG."""
    path.mkdir()
    (path / "params.json").write_text(json.dumps(params))
    if weights is None:
        weights = {name: mx.array(w) for name, w in native_weights(random_weights(CONFIG)).items()}
    if shards == 1:
        mx.save_safetensors(str(path / "consolidated.safetensors"), weights)
        return path
    places = {name: f"consolidated-{i % shards + 1:05d}-of-{shards:05d}.safetensors" for i, name in enumerate(weights)}
    for file in set(places.values()):
        mx.save_safetensors(str(path / file), {name: weights[name] for name in weights if places[name] == file})
    (path / "consolidated.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    return path


def write_safetensors(path: Path, tensors: dict[str, np.ndarray], dtypes: dict[str, str]) -> None:
    """Write arrays as they are; `dtypes` names by tensor the dtypes that NumPy does not have."""
    usual = {"float32": "F32", "float16": "F16", "int32": "I32", "uint32": "U32"}
    header, end = {}, 0
    for name, array in tensors.items():
        start, end = end, end + array.nbytes
        dtype = dtypes.get(name) or usual[array.dtype.name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    content = [array.tobytes() for array in tensors.values()]
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"".join(content))


def bytes_to_unicode() -> list[str]:
    """Return GPT-2's visible character of every byte; unprintable ones map to 256 and up."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    shifted = iter(range(256, 512))
    return [chr(b) if b in plain else chr(next(shifted)) for b in range(256)]


def close(writer: gguf.GGUFWriter) -> Path:
    """Write the file of `writer` and return its path."""
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return Path(writer.path)

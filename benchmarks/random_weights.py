"""Writes random weights of a shape, tensor by tensor, as an MLX folder and as a GGUF file."""

import json
import struct
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import gguf
import numpy as np
from models import ROUTER, BenchmarkModel, Shape
from numpy.typing import NDArray

from mistral_mlx.convert.sources.gguf.sentencepiece import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    Piece,
    SpecialIds,
    sentencepiece_model,
)
from mistral_mlx.convert.sources.gguf.source import BLOCK_NAMES

Array = NDArray[np.generic]
GROUP_SIZE = 64
DEVIATION = 0.02  # of a weight
MAX_POSITIONS = 32768


def write_folder(model: BenchmarkModel, path: Path) -> None:
    """Write config.json, a dummy tokenizer.model and one file of weights."""
    path.mkdir()
    bits = {4.5: 4, 8.5: 8}.get(model.bits)
    (path / "config.json").write_text(json.dumps(_config(model.shape, bits), indent=2))
    write_tokenizer(model.shape, path)
    entries = {
        name: (dtype, shape) for hf, rows in _hf_tensors(model.shape) for name, dtype, shape in _parts(hf, rows, bits)
    }
    rng = np.random.default_rng(0)
    with (path / "model.safetensors").open("wb") as file:
        file.write(_safetensors_header(entries))
        for name, (dtype, shape) in entries.items():
            file.write(_values(rng, name, dtype, shape, bits).data)


def write_mixtral(shape: Shape, path: Path) -> None:
    """Write a bfloat16 Mixtral as Hugging Face has it: a tensor for each matrix of an expert, a file for each layer."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(_config(shape, None), indent=2))
    write_tokenizer(shape, path)
    files: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {}
    for name, rows in _expert_tensors(shape):
        layer = name.split(".")[2] if ".layers." in name else "ends"
        files.setdefault(f"model-{layer}.safetensors", {})[name] = ("BF16", rows)
    index = {name: file for file, entries in files.items() for name in entries}
    (path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    for name, entries in files.items():
        with (path / name).open("wb") as file:
            file.write(_safetensors_header(entries))
            for _, rows in entries.values():
                file.write((_normal(rows) if rows[1:] else _bfloat16(np.ones(rows, np.float32))).data)


def write_tokenizer(shape: Shape, path: Path) -> None:
    """Write a dummy vocabulary into the folder `path`."""
    special = SpecialIds(unk=0, bos=1, eos=2, pad=None)
    (path / "tokenizer.model").write_bytes(sentencepiece_model(_pieces(shape), special, dummy_prefix=True))
    (path / "tokenizer_config.json").write_text(json.dumps({"add_bos_token": True}))


def write_gguf(shape: Shape, path: Path, kind: str) -> None:
    """Write a shape for llama.cpp, with all matrices of a kind: BF16, Q4_0, Q4_K or Q8_0."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(shape.n_layers)
    writer.add_context_length(MAX_POSITIONS)
    writer.add_embedding_length(shape.dim)
    writer.add_feed_forward_length(shape.hidden_dim)
    writer.add_head_count(shape.n_heads)
    writer.add_head_count_kv(shape.n_kv_heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(shape.head_dim)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(shape.vocab_size)
    if shape.n_experts:
        writer.add_expert_count(shape.n_experts)
        writer.add_expert_used_count(shape.experts_per_token)
    pieces = _pieces(shape)
    writer.add_tokenizer_model("llama")
    writer.add_token_list([piece.text for piece in pieces])
    writer.add_token_scores([piece.score for piece in pieces])
    writer.add_token_types([piece.kind for piece in pieces])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    kinds = {
        name: gguf.GGMLQuantizationType["F32" if _is_plain(name, rows) else kind] for name, rows in _gguf_tensors(shape)
    }
    for name, rows in _gguf_tensors(shape):
        n_bytes = gguf.quant_shape_to_byte_shape(rows, kinds[name])
        writer.add_tensor_info(name, n_bytes, np.dtype(np.uint8), int(np.prod(n_bytes)), raw_dtype=kinds[name])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    rng = np.random.default_rng(0)
    for name, rows in _gguf_tensors(shape):
        writer.write_tensor_data(_blocks(rng, kinds[name].name, rows))
    writer.close()


def _config(shape: Shape, bits: int | None) -> dict[str, object]:
    """Return config.json of Mistral 7B v0.1, or of a mixture, with the numbers of `shape`."""
    family = "mixtral" if shape.n_experts else "mistral"
    config: dict[str, object] = {
        "architectures": [f"{family.capitalize()}ForCausalLM"],
        "model_type": family,
        "hidden_act": "silu",
        "hidden_size": shape.dim,
        "num_hidden_layers": shape.n_layers,
        "intermediate_size": shape.hidden_dim,
        "num_attention_heads": shape.n_heads,
        "num_key_value_heads": shape.n_kv_heads,
        "vocab_size": shape.vocab_size,
        "sliding_window": shape.window,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "max_position_embeddings": MAX_POSITIONS,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    if shape.n_experts:
        config |= {"num_local_experts": shape.n_experts, "num_experts_per_tok": shape.experts_per_token}
    return config | ({"quantization": {"group_size": GROUP_SIZE, "bits": bits}} if bits else {})


def _is_plain(name: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor is never packed: a norm, or the router of a mixture."""
    return len(shape) == 1 or ROUTER in name or BLOCK_NAMES[ROUTER] in name


def _pieces(shape: Shape) -> list[Piece]:
    """Return three special pieces, the bytes, and words of one number each."""
    bytes_ = [Piece(f"<0x{n:02X}>", 0.0, BYTE) for n in range(256)]
    words = [Piece(f"▁w{n}", -float(n), NORMAL) for n in range(shape.vocab_size - 3 - len(bytes_))]
    return [Piece("<unk>", 0.0, UNKNOWN), Piece("<s>", 0.0, CONTROL), Piece("</s>", 0.0, CONTROL), *bytes_, *words]


def _gguf_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "token_embd.weight", (shape.vocab_size, shape.dim)
    for n in range(shape.n_layers):
        for name, rows in {**shape.layer(), "attn_norm": (shape.dim,), "ffn_norm": (shape.dim,)}.items():
            yield f"blk.{n}.{name}.weight", rows
    yield "output_norm.weight", (shape.dim,)
    yield "output.weight", (shape.vocab_size, shape.dim)


def _hf_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    ends = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    for name, rows in _gguf_tensors(shape):
        stem = name.removesuffix(".weight")
        _, n, kind = stem.split(".") if "." in stem else ("", "", "")
        yield f"{ends[stem] if stem in ends else f'model.layers.{n}.{BLOCK_NAMES[kind]}'}.weight", rows


def _expert_tensors(shape: Shape) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Yield the tensors as Hugging Face has them, the matrices of each expert apart."""
    letters = {"gate_proj": "w1", "down_proj": "w2", "up_proj": "w3"}
    for name, rows in _hf_tensors(shape):
        layer, is_expert, module = name.removesuffix(".weight").partition("switch_mlp.")
        if not is_expert:
            yield name, rows
        for e in range(rows[0] if is_expert else 0):
            yield f"{layer}experts.{e}.{letters[module]}.weight", rows[1:]


def _parts(name: str, rows: tuple[int, ...], bits: int | None) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """Yield name, dtype and shape of what a tensor is stored as."""
    if bits is None or _is_plain(name, rows):
        yield name, "BF16", rows
        return
    *lines, columns = rows
    yield name, "U32", (*lines, columns * bits // 32)
    for part in ("scales", "biases"):
        yield f"{name.removesuffix('weight')}{part}", "BF16", (*lines, columns // GROUP_SIZE)


def _safetensors_header(entries: dict[str, tuple[str, tuple[int, ...]]]) -> bytes:
    header: dict[str, object] = {"__metadata__": {"format": "mlx"}}
    start = 0
    for name, (dtype, shape) in entries.items():
        stop = start + int(np.prod(shape)) * (4 if dtype == "U32" else 2)
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}
        start = stop
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _values(rng: np.random.Generator, name: str, dtype: str, shape: tuple[int, ...], bits: int | None) -> Array:
    if dtype == "U32":
        return np.frombuffer(rng.bytes(int(np.prod(shape)) * 4), np.uint8)
    if len(shape) == 1:
        return _bfloat16(np.ones(shape, np.float32))
    if bits is None or _is_plain(name, shape):
        return _normal(shape)
    # Codes are uniform over 0 .. 2^bits - 1: this step gives them the deviation, this offset takes their mean away.
    step = DEVIATION * 12**0.5 / (1 << bits)
    value = -step * ((1 << bits) - 1) / 2 if name.endswith("biases") else step
    return _bfloat16(np.full(shape, value, np.float32))


def _blocks(rng: np.random.Generator, kind: str, rows: tuple[int, ...]) -> Array:
    """Return the bytes of a GGUF tensor, ``[rows, bytes]``: blocks of scales and codes, whose deviation is ours."""
    if kind == "F32":
        bits = _normal(rows).astype(np.uint32) << 16
        return np.ones(rows, np.float32) if len(rows) == 1 else bits.view(np.float32)
    if kind == "BF16":
        return _normal(rows)
    scales = _scales(kind)
    n_weights, nbytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    n_blocks = int(np.prod(rows)) // n_weights
    blocks = np.empty((n_blocks, nbytes), np.uint8)
    blocks[:, : len(scales)] = scales
    blocks[:, len(scales) :] = np.frombuffer(rng.bytes(n_blocks * (nbytes - len(scales))), np.uint8).reshape(
        n_blocks, -1
    )
    return blocks.reshape(*rows[:-1], -1)


def _scales(kind: str) -> NDArray[np.uint8]:
    """Return the bytes before the codes of a block, such that uniform codes have the deviation and no mean."""
    step = DEVIATION * 12**0.5 / (256 if kind == "Q8_0" else 16)
    if kind != "Q4_K":
        return np.array([step], np.float16).view(np.uint8)  # the codes are signed
    # Weights are d * 32 * code - dmin * 32: eight scales and eight minima are 32, in 6 bits each, packed into 12 bytes.
    factors = np.array([step / 32, 7.5 * step / 32], np.float16).view(np.uint8)
    return np.concatenate([factors, np.array([0xA0] * 8 + [0] * 4, np.uint8)])


def _normal(shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """Return bfloat16 numbers that repeat every 2^22: drawing them all takes minutes, and no converter notices."""
    return np.resize(_normal_block(), shape)


@cache
def _normal_block() -> NDArray[np.uint16]:
    return _bfloat16(np.random.default_rng(0).standard_normal(1 << 22, np.float32) * np.float32(DEVIATION))


def _bfloat16(values: NDArray[np.float32]) -> NDArray[np.uint16]:
    """Return the upper halves; what is cut off does not matter here."""
    return (values.view(np.uint32) >> 16).astype(np.uint16)

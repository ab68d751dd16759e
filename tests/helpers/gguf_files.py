"""GGUF files with a tensor of any type, and files in several parts."""

from pathlib import Path

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from helpers.convert_sources import CONFIG, add_weights, close, gguf_name, gguf_writer, random_weights

WIDE = {**CONFIG, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "head_dim": 64}
# Offsets in bytes of the float16 numbers in a block; its other bytes may have any value.
HALVES = {
    "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208],
    "TQ1_0": [52], "TQ2_0": [64],
}  # fmt: skip
HEAD = "lm_head.weight"


def random_blocks(kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Return random bytes that are a matrix of `kind`, with scales of a usual size."""
    rng = np.random.default_rng(0)
    per_block, nbytes = GGML_QUANT_SIZES[GGMLQuantizationType[kind]]
    blocks = rng.integers(0, 256, (shape[0], shape[1] // per_block, nbytes), dtype=np.uint8)
    if kind == "MXFP4":
        blocks[..., 0] = 120
    elif kind == "NVFP4":
        blocks[..., :4] = 0x38
    elif kind == "IQ1_M":  # the scale is in the high nibbles of four words
        blocks[..., 49:56:2] = blocks[..., 49:56:2] & 15 | np.array([0x00, 0x20, 0x20, 0x20], np.uint8)
    else:
        for start in HALVES.get(kind, [0]):
            scale = rng.uniform(0.01, 0.02, blocks.shape[:2]).astype("<f2")
            blocks[..., start : start + 2] = scale[..., None].view(np.uint8)
    return blocks.reshape(shape[0], -1)


def with_head(path: Path, kind: str) -> tuple[Path, np.ndarray]:
    """Write a file with a head of `kind`; return it, and the head as gguf unpacks it."""
    weights = random_weights(WIDE)
    blocks = random_blocks(kind, weights.pop(HEAD).shape)
    writer = gguf_writer(path, WIDE)
    add_weights(writer, weights, "Q8_0", WIDE)
    writer.add_tensor(gguf_name(HEAD), blocks, raw_dtype=GGMLQuantizationType[kind])
    return close(writer), gguf.quants.dequantize(blocks, GGMLQuantizationType[kind])


def write_parts(folder: Path) -> list[Path]:
    """Write a file in three parts, as llama-gguf-split does, into a new folder."""
    folder.mkdir()
    weights = list(random_weights(CONFIG).items())
    paths = [folder / f"m-{i + 1:05d}-of-00003.gguf" for i in range(3)]
    for i, path in enumerate(paths):
        writer = gguf_writer(path) if i == 0 else gguf.GGUFWriter(path, "llama")
        if i > 0:
            writer.kv_data[0].clear()
        writer.add_uint16("split.no", i)
        writer.add_uint16("split.count", 3)
        writer.add_int32("split.tensors.count", len(weights))
        add_weights(writer, dict(weights[i * 8 : i * 8 + 8]), "Q8_0")
        close(writer)
    return paths

"""Every way ggml stores a weight, as the gguf library unpacks it and as the converter takes it; and split files."""

import json
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from convert_sources import CONFIG, add_weights, close, gguf_name, gguf_writer, random_weights
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

from mistral_mlx.convert import convert
from mistral_mlx.convert.export.gguf_export import export_gguf
from mistral_mlx.convert.sources.gguf_source import NEAREST
from mistral_mlx.convert.sources.packed import PACKINGS
from mistral_mlx.errors import CheckpointError

WIDE = {**CONFIG, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 1, "head_dim": 64}
# Where a block has its float16 numbers, in bytes; whatever else is in it may be anything.
HALVES = {
    "Q4_1": [0, 2], "Q5_1": [0, 2], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q2_K": [80, 82], "Q3_K": [108], "Q6_K": [208],
    "TQ1_0": [52], "TQ2_0": [64],
}  # fmt: skip
HEAD = "lm_head.weight"


def random_blocks(kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Random bytes that are a matrix of `kind`, its scales of a usual size."""
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
    """A file whose head is stored as `kind`, and that head as the gguf library unpacks it."""
    weights = random_weights(WIDE)
    blocks = random_blocks(kind, weights.pop(HEAD).shape)
    writer = gguf_writer(path, WIDE)
    add_weights(writer, weights, "Q8_0", WIDE)
    writer.add_tensor(gguf_name(HEAD), blocks, raw_dtype=GGMLQuantizationType[kind])
    return close(writer), gguf.quants.dequantize(blocks, GGMLQuantizationType[kind])


def head_of(folder: Path) -> tuple[dict[str, object], np.ndarray]:
    """How the head of a folder is packed, and its weights."""
    rule = json.loads((folder / "config.json").read_text())["quantization"]
    packing = rule.get("lm_head", rule)
    tensors = mx.load(str(folder / "model.safetensors"))
    scales, biases = (tensors[f"lm_head.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    bits, group_size = packing["bits"], packing["group_size"]
    return packing, np.array(mx.dequantize(tensors[HEAD], scales, biases, group_size=group_size, bits=bits))


@pytest.mark.parametrize("kind", PACKINGS)
def test_kinds_with_a_form_in_mlx_are_carried_over_to_the_bit(tmp_path: Path, kind: str) -> None:
    path, stored = with_head(tmp_path / "x.gguf", kind)
    convert(path, tmp_path / "target", dtype="float32")
    packing, found = head_of(tmp_path / "target")
    assert (packing["bits"], packing["group_size"]) == PACKINGS[kind][:2]
    np.testing.assert_array_equal(found, stored)


@pytest.mark.parametrize("kind", ["Q4_K", "Q5_K"])
def test_scales_that_are_products_are_rounded_to_float16_and_this_is_said(tmp_path: Path, kind: str) -> None:
    path, stored = with_head(tmp_path / "x.gguf", kind)
    report = convert(path, tmp_path / "target")
    _, found = head_of(tmp_path / "target")
    error = np.linalg.norm(found - stored) / np.linalg.norm(stored)
    assert 0 < error < 4e-4
    assert report.notes[1] == (
        f"the source's {kind} weights are carried over (group size 32), their scales rounded to float16 "
        "(--dtype float32 keeps them to the bit)"
    )


@pytest.mark.parametrize("kind", NEAREST)
def test_other_kinds_are_packed_with_little_more_loss(tmp_path: Path, kind: str) -> None:
    path, stored = with_head(tmp_path / "x.gguf", kind)
    report = convert(path, tmp_path / "target")
    packing, found = head_of(tmp_path / "target")
    bits, group_size, _ = NEAREST[kind]
    error = np.linalg.norm(found - stored) / np.linalg.norm(stored)
    assert (packing["bits"], packing["group_size"]) == (bits, group_size)
    assert error < {5: 0.06, 6: 0.04, 8: 0.01}[bits]
    assert report.errors == [(HEAD, pytest.approx(error, rel=1e-3))]
    assert f"{kind} to {bits} bits in groups of {group_size}" in report.notes[1]


def test_a_kind_nobody_can_unpack_is_refused_in_a_line(tmp_path: Path) -> None:
    writer = gguf_writer(tmp_path / "x.gguf", WIDE)
    weights = random_weights(WIDE)
    rows = np.zeros((weights.pop(HEAD).shape[0], 292), np.uint8)
    add_weights(writer, weights, "Q8_0", WIDE)
    writer.add_tensor("output.weight", rows, raw_dtype=GGMLQuantizationType.Q8_K)
    with pytest.raises(CheckpointError, match=r"output\.weight is stored as Q8_K; only F32, F16, BF16, Q4_0"):
        convert(close(writer), tmp_path / "target")


@pytest.mark.parametrize("kind", ["Q5_0", "Q5_1"])
def test_five_bits_come_back_to_the_byte_from_an_export(tmp_path: Path, kind: str) -> None:
    path, _ = with_head(tmp_path / "a.gguf", kind)
    convert(path, tmp_path / "folder")
    export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    heads = [
        next(t for t in gguf.GGUFReader(tmp_path / name).tensors if t.name == "output.weight")
        for name in ("a.gguf", "b.gguf")
    ]
    assert heads[0].tensor_type == heads[1].tensor_type == GGMLQuantizationType[kind]
    assert heads[0].data.tobytes() == heads[1].data.tobytes()


@pytest.fixture
def parts(tmp_path: Path) -> list[Path]:
    """A file in three parts, as llama-gguf-split writes them, in a folder of their own."""
    (tmp_path / "split").mkdir()
    weights = list(random_weights(CONFIG).items())
    paths = [tmp_path / "split" / f"m-{i + 1:05d}-of-00003.gguf" for i in range(3)]
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


@pytest.mark.parametrize("given", [0, 1, 2, None])
def test_parts_are_found_beside_whichever_is_named(tmp_path: Path, parts: list[Path], given: int | None) -> None:
    writer = gguf_writer(tmp_path / "whole.gguf")
    add_weights(writer, random_weights(CONFIG), "Q8_0")
    convert(close(writer), tmp_path / "whole")
    convert(parts[0].parent if given is None else parts[given], tmp_path / "target")
    for name in ("config.json", "model.safetensors"):
        assert (tmp_path / "target" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_missing_parts_are_named(tmp_path: Path, parts: list[Path]) -> None:
    parts[0].unlink()
    with pytest.raises(CheckpointError, match=r"m-00001-of-00003\.gguf is missing; the GGUF file has 3 parts"):
        convert(parts[0].parent, tmp_path / "target")
    parts[1].unlink()
    with pytest.raises(CheckpointError, match=r"m-00001-of-00003\.gguf and 1 more is missing"):
        convert(parts[2], tmp_path / "target")


def test_parts_that_do_not_belong_together_are_refused(tmp_path: Path, parts: list[Path]) -> None:
    content = parts[2].read_bytes()
    parts[2].write_bytes(parts[1].read_bytes())
    with pytest.raises(CheckpointError, match=r"m-00003-of-00003\.gguf says that it is part 1 of 3"):
        convert(parts[0], tmp_path / "target")
    parts[2].write_bytes(content.replace(b"output_norm.weight", b"token_embd2.weight"))
    with pytest.raises(CheckpointError, match="no place in a llama"):
        convert(parts[0], tmp_path / "target")
    parts[2].rename(parts[2].with_name("other.gguf"))
    with pytest.raises(CheckpointError, match=r"other\.gguf is one of 3 parts, but not named like"):
        convert(parts[2].with_name("other.gguf"), tmp_path / "target")


def test_a_number_of_tensors_that_is_not_there_is_refused(tmp_path: Path, parts: list[Path]) -> None:
    key = b"split.tensors.count" + (5).to_bytes(4, "little")
    parts[0].write_bytes(parts[0].read_bytes().replace(key + b"\x15", key + b"\x16"))
    with pytest.raises(CheckpointError, match=r"split\.tensors\.count is 22, but the parts hold 21 tensors"):
        convert(parts[0], tmp_path / "target")

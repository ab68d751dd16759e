"""All ggml weight types, unpacked by the gguf library and by the converter; split files."""

import json
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf import GGMLQuantizationType
from helpers.convert_sources import CONFIG, add_weights, close, gguf_writer, random_weights
from helpers.gguf_files import HEAD, WIDE, with_head, write_parts

from mistral_mlx.convert import convert
from mistral_mlx.convert.export.gguf_export import export_gguf
from mistral_mlx.convert.storage.gguf import NEAREST, PACKINGS, ROUNDED_KINDS
from mistral_mlx.errors import CheckpointError


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


@pytest.mark.parametrize(
    ("kind", "bits_per_weight"),
    [
        ("IQ4_NL", 9), ("IQ4_XS", 10), ("IQ3_S", 6), ("IQ3_XXS", 8), ("IQ2_XXS", 10), ("IQ1_S", 4), ("IQ1_M", 8.5),
        ("Q3_K", 8.25), ("TQ1_0", 2.25), ("TQ2_0", 2.25),
    ],
)  # fmt: skip
def test_kinds_with_a_grid_are_carried_over_to_the_bit_unless_another_dtype_is_asked_for(
    tmp_path: Path, kind: str, bits_per_weight: float
) -> None:
    """Their scales are float32 where float16 cannot hold them: these formats used to be packed anew, with a loss."""
    path, stored = with_head(tmp_path / "x.gguf", kind)
    report = convert(path, tmp_path / "target")
    _, found = head_of(tmp_path / "target")
    np.testing.assert_array_equal(found, stored)
    tensors = mx.load(str(tmp_path / "target" / "model.safetensors"))
    nbytes = sum(tensors[f"lm_head.{part}"].nbytes for part in ("weight", "scales", "biases"))
    assert nbytes * 8 / stored.size == bits_per_weight
    assert report.errors == []
    assert f"{', '.join(sorted([kind, 'Q8_0']))} weights are carried over without loss" in report.notes[0]


@pytest.mark.parametrize("kind", [kind for kind in ROUNDED_KINDS if kind.startswith("IQ")])
def test_scales_of_grids_may_be_float16_with_little_loss(tmp_path: Path, kind: str) -> None:
    path, stored = with_head(tmp_path / "x.gguf", kind)
    report = convert(path, tmp_path / "target", dtype="float16")
    _, found = head_of(tmp_path / "target")
    assert 0 < np.linalg.norm(found - stored) / np.linalg.norm(stored) < 6e-4
    assert "their scales rounded to float16 (--dtype float32 keeps them to the bit)" in report.notes[1]


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
    return write_parts(tmp_path / "split")


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

"""Folders packed by MLX: refused, quantized again by --bits, unpacked by --dequantize."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, random_weights, write_folder
from typer.testing import CliRunner

from mistral_mlx.cli.app import app
from mistral_mlx.convert import convert
from mistral_mlx.convert.storage.mlx import Mlx, MlxRows
from mistral_mlx.convert.storage.rows import Stored
from mistral_mlx.errors import ConversionError, MistralMLXError, OptionError
from mistral_mlx.model.loading import load_model
from mistral_mlx.model.packing import Packing

IDS = mx.array([[1, 5, 9, 33, 7]])
USUAL = Packing(4, 64)
MIXED = {"model.embed_tokens": Packing(8, 32), "model.layers.0.mlp.up_proj": Packing(3, 128),
         "model.layers.1.mlp.up_proj": Packing(6, 64), "lm_head": None}  # fmt: skip


def packed_folder(path: Path, dtype: mx.Dtype = mx.float16, **changes: mx.array | None) -> dict[str, np.ndarray]:
    """Write a folder with several packings, and `changes` (names with __ for dots); return what it unpacks to."""
    weights, unpacked = {}, {}
    for name, weight in random_weights(CONFIG).items():
        module = name.removesuffix(".weight")
        packing = MIXED.get(module, USUAL) if weight.ndim == 2 else None
        array = mx.array(weight).astype(dtype)
        if packing is None:
            weights[name] = array
            unpacked[name] = np.array(array.astype(mx.float32))
            continue
        parts = mx.quantize(array, group_size=packing.group_size, bits=packing.bits)
        weights |= zip((name, f"{module}.scales", f"{module}.biases"), parts, strict=True)
        scales, biases = (part.astype(mx.float32) for part in parts[1:])
        whole = mx.dequantize(parts[0], scales, biases, group_size=packing.group_size, bits=packing.bits)
        unpacked[name] = np.array(whole)
    for name, array in changes.items():
        weights[name.replace("__", ".")] = array
    rule = USUAL.as_config() | {m: p.as_config() if p else False for m, p in MIXED.items()}
    config = {**CONFIG, "quantization": rule, "quantization_config": rule, "torch_dtype": str(dtype).split(".")[-1]}
    write_folder(path, config, weights={name: array for name, array in weights.items() if array is not None})
    return unpacked


def written(folder: Path) -> dict[str, mx.array]:
    return mx.load(str(folder / "model.safetensors"))


def test_without_an_option_it_is_refused_with_both_that_help(tmp_path: Path) -> None:
    packed_folder(tmp_path / "source")
    with pytest.raises(ConversionError, match=r"already quantized for MLX: use it as it is; --bits .*--dequantize"):
        convert(tmp_path / "source", tmp_path / "target")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("dtype", [mx.float16, mx.bfloat16, mx.float32])
def test_dequantize_rounds_what_float32_unpacks_to_once(tmp_path: Path, dtype: mx.Dtype) -> None:
    unpacked = packed_folder(tmp_path / "source", dtype)
    report = convert(tmp_path / "source", tmp_path / "target", dequantize=True)
    found = written(tmp_path / "target")
    assert set(found) == set(unpacked)
    for name, weight in unpacked.items():
        assert found[name].dtype == dtype and mx.array_equal(found[name], mx.array(weight).astype(dtype)), name
    config = json.loads((tmp_path / "target" / "config.json").read_text())
    assert config == {**CONFIG, "torch_dtype": str(dtype).split(".")[-1]}
    assert report.notes[0] == "the source's MLX weights are unpacked" and report.kept == report.errors == []


@pytest.mark.usefixtures("exact_products")
def test_dequantized_weights_give_the_logits_of_the_packed_ones(tmp_path: Path) -> None:
    packed_folder(tmp_path / "source")
    expected = np.array(load_model(tmp_path / "source")(IDS))
    for dtype, bound in (("float32", 2e-3), ("float16", 4e-3)):  # the packed kernels round activations to 8 bits or so
        convert(tmp_path / "source", tmp_path / dtype, dequantize=True, dtype=dtype)
        found = np.array(load_model(tmp_path / dtype)(IDS))
        assert np.abs(found - expected).max() <= bound * np.abs(expected).max()


def test_bits_quantize_again_and_the_loss_is_said(tmp_path: Path) -> None:
    unpacked = packed_folder(tmp_path / "source")
    report = convert(tmp_path / "source", tmp_path / "target", bits=8, group_size=32)
    found = written(tmp_path / "target")
    for name, weight in unpacked.items():
        half = mx.array(weight).astype(mx.float16)
        if weight.ndim == 2:
            assert mx.array_equal(found[name], mx.quantize(half, group_size=32, bits=8)[0]), name
    assert report.notes[0].startswith("the source's MLX weights are quantized again, loss upon loss")
    rule = {"group_size": 32, "bits": 8, "mode": "affine"}
    assert json.loads((tmp_path / "target" / "config.json").read_text())["quantization"] == rule


def test_blocks_of_rows_give_the_bits_of_the_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packed_folder(tmp_path / "source")
    convert(tmp_path / "source", tmp_path / "whole", dequantize=True)
    monkeypatch.setattr("mistral_mlx.convert.sources.source.BLOCK_WEIGHTS", 128 * 3 + 1)
    convert(tmp_path / "source", tmp_path / "blocks", dequantize=True)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "blocks")]
    assert files[0] == files[1]


@pytest.mark.parametrize(("mode", "bits", "group_size"), [("mxfp4", 4, 32), ("mxfp8", 8, 32), ("nvfp4", 4, 16)])
def test_other_modes_unpack_as_mlx_unpacks_them(mode: str, bits: int, group_size: int) -> None:
    weight, scales = mx.quantize(mx.random.normal((6, 64), key=mx.random.key(1)), mode=mode)
    stored = Stored("w", Path(), 0, 6, 0)
    storage = Mlx(stored, stored, None, Packing(bits, group_size, mode))
    found = MlxRows(np.array(weight).view(np.uint8), np.array(scales), None, storage).weights()
    expected = mx.dequantize(weight, scales, mode=mode, dtype=mx.float32)
    assert found.dtype == "F32" and np.array_equal(found.floats(), np.array(expected))


def test_a_source_with_nothing_packed_is_kept_as_it_is(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source")
    report = convert(source, tmp_path / "target", dequantize=True)
    assert all(mx.array_equal(a, mx.array(random_weights(CONFIG)[n])) for n, a in written(tmp_path / "target").items())
    assert report.notes[0] == "the source has nothing to unpack"


@pytest.mark.parametrize("asked", [{"bits": 4}, {"group_size": 64}])
def test_dequantize_and_bits_exclude_one_another(tmp_path: Path, asked: dict[str, int]) -> None:
    packed_folder(tmp_path / "source")
    with pytest.raises(OptionError, match="dequantize writes plain weights"):
        convert(tmp_path / "source", tmp_path / "target", dequantize=True, **asked)


HEAD = "model__layers__1__self_attn__o_proj"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({f"{HEAD}__biases": None}, "o_proj.biases is missing"),
        ({f"{HEAD}__weight": None}, "o_proj.scales has no weight|o_proj.biases has no weight"),
        ({f"{HEAD}__scales": mx.zeros((128, 3), mx.float16)}, r"o_proj.scales is F16 \[128, 3\]; .* \[128, 2\] belong"),
        ({f"{HEAD}__biases": mx.zeros((0, 2), mx.float16)}, r"o_proj.biases is F16 \[0, 2\]"),
        ({f"{HEAD}__scales": mx.zeros((128, 2), mx.int32)}, "o_proj.scales is I32"),
        ({f"{HEAD}__scales": mx.full((128, 2), float("nan"), mx.float16)}, "o_proj.weight holds NaN or infinity"),
        ({f"{HEAD}__weight": mx.zeros((128, 17), mx.uint32)}, r"o_proj.scales .* belong to 4 bits in groups of 64"),
        ({f"{HEAD}__weight": mx.zeros((128, 128), mx.float16)}, r"o_proj.weight is F16 \[128, 128\], which 4 bits"),
        ({f"{HEAD}__weight": mx.zeros((0, 16), mx.uint32), f"{HEAD}__scales": mx.zeros((0, 2), mx.float16),
          f"{HEAD}__biases": mx.zeros((0, 2), mx.float16)}, "o_proj.weight has the impossible shape"),
    ],
)  # fmt: skip
def test_damage_is_named_in_one_line(tmp_path: Path, changes: dict[str, mx.array], message: str) -> None:
    packed_folder(tmp_path / "source", **changes)
    with pytest.raises(MistralMLXError, match=message) as caught:
        convert(tmp_path / "source", tmp_path / "target", dequantize=True)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


@pytest.mark.parametrize("rule", [{"bits": 4, "group_size": -64}, {"bits": 0, "group_size": 64}, {"mode": "x"}, "4"])
def test_a_rule_that_cannot_be_is_refused_by_its_key(tmp_path: Path, rule: object) -> None:
    packed_folder(tmp_path / "source")
    (tmp_path / "source" / "config.json").write_text(json.dumps({**CONFIG, "quantization": rule}))
    with pytest.raises(MistralMLXError, match=r"config\.json: quantization"):
        convert(tmp_path / "source", tmp_path / "target", dequantize=True)


def test_the_command_has_the_option(tmp_path: Path) -> None:
    packed_folder(tmp_path / "source")
    result = CliRunner().invoke(app, ["convert", str(tmp_path / "source"), str(tmp_path / "out"), "--dequantize"])
    assert result.exit_code == 0, result.output
    assert "quantization" not in json.loads((tmp_path / "out" / "config.json").read_text())

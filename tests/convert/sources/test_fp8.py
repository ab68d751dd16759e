"""FP8 weights in all three layouts, encoded by MLX and decoded by the converter."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import PARAMS, write_folder
from helpers.fp8_folders import BLOCKS, COMPRESSED, HF, NATIVE, Spelling, compressed, fp8_folder

from mistral_mlx.convert import convert
from mistral_mlx.convert.storage.fp8 import E4M3
from mistral_mlx.errors import MistralMLXError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.loading import inspect_model


def test_the_table_is_mlx_s() -> None:
    codes = mx.arange(256).astype(mx.uint8)
    np.testing.assert_array_equal(E4M3, np.array(mx.from_fp8(codes, dtype=mx.float32)))


CASES = [
    (HF, "tensor"), (HF._replace(rule=BLOCKS), "block"), (COMPRESSED, "channel"), (COMPRESSED, "tensor"),
    (COMPRESSED._replace(rule=compressed(strategy="block", block_structure=[48, 80])), "block"), (NATIVE, "tensor"),
    (NATIVE, "channel"),
]  # fmt: skip


@pytest.mark.parametrize(("spelling", "kind"), CASES)
def test_unpacked_they_are_the_scaled_codes_bit_by_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spelling: Spelling, kind: str
) -> None:
    monkeypatch.setattr("mistral_mlx.convert.sources.source.BLOCK_WEIGHTS", 128 * 50)  # several blocks, ragged ones
    decoded = fp8_folder(tmp_path / "source", spelling, kind)
    report = convert(tmp_path / "source", tmp_path / "target", dequantize=True)
    found = mx.load(str(tmp_path / "target" / "model.safetensors"))
    assert set(found) == set(decoded)
    for name, weight in decoded.items():
        np.testing.assert_array_equal(np.array(found[name]), weight, err_msg=name)
    assert report.notes[:2] == [
        f"{spelling.activation} is left out: activations are not quantized here",
        "the source's F8_E4M3 weights are unpacked",
    ]
    assert "quantization_config" not in json.loads((tmp_path / "target" / "config.json").read_text())


@pytest.mark.parametrize(("spelling", "kind"), [CASES[1], CASES[5]])
def test_they_are_packed_as_their_decoded_weights_are(tmp_path: Path, spelling: Spelling, kind: str) -> None:
    decoded = fp8_folder(tmp_path / "source", spelling, kind)
    plain = write_folder(tmp_path / "plain", weights={name: mx.array(w) for name, w in decoded.items()})
    report = convert(tmp_path / "source", tmp_path / "ours", bits=4)
    convert(plain, tmp_path / "expected", bits=4)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("ours", "expected")]
    assert files[0] == files[1]
    assert "F8_E4M3 weights are quantized again, loss upon loss" in report.notes[1]


UP = "model__layers__0__mlp__up_proj__"
WQ = "layers__0__attention__wq__"


@pytest.mark.parametrize(
    ("spelling", "changes", "message"),
    [
        (HF, {f"{UP}weight_scale_inv": None}, r"up_proj.weight is stored as F8_E4M3 with 0 scales; one is expected"),
        (HF, {f"{UP}weight_scale": np.ones((), np.float32)}, "with 2 scales"),
        (HF, {f"{UP}weight": None}, "up_proj.weight_scale_inv has no F8_E4M3 weight beside it"),
        (HF, {f"{UP}weight": np.ones((256, 128), np.float32)}, "up_proj.weight_scale_inv has no F8_E4M3 weight"),
        (HF, {f"{UP}weight": np.zeros((0, 128), np.uint8)}, r"up_proj.weight has the impossible shape \[0, 128\]"),
        (HF, {f"{UP}weight": np.zeros(128, np.uint8)}, r"up_proj.weight of shape \[128\] is no matrix"),
        (HF, {f"{UP}weight": np.full((256, 128), 127, np.uint8)}, "up_proj.weight holds NaN or infinity"),
        (HF, {f"{UP}weight_scale_inv": np.float32(np.nan)}, "up_proj.weight holds NaN or infinity"),
        (HF, {f"{UP}weight_scale_inv": np.float32(np.inf)}, "up_proj.weight holds NaN or infinity"),
        (HF, {f"{UP}weight_scale_inv": np.ones((2, 1), np.float32)}, r"F32 \[2, 1\], which does not scale \[256"),
        (HF, {f"{UP}weight_scale_inv": np.ones((), np.int32)}, r"I32 \[\], which does not scale"),
        (HF, {f"{UP}weight_scale_inv": np.ones((0,), np.float32)}, r"F32 \[0\], which does not scale"),
        (HF._replace(rule={**BLOCKS, "weight_block_size": [-48, 80]}), {}, r"is \[-48, 80\]; a list of two"),
        (HF._replace(rule={**BLOCKS, "weight_block_size": 128}), {}, r"weight_block_size is 128; a list of two"),
        (HF._replace(rule={"quant_method": "fp8", "fmt": "e5m2"}), {}, "only FP8 weights"),
        (COMPRESSED._replace(rule={**compressed(), "format": "pack-quantized"}), {}, "_config is"),
        (COMPRESSED._replace(rule=compressed(num_bits=4)), {}, "only FP8 weights"),
        (COMPRESSED._replace(rule={**compressed(), "config_groups": {"g": 3}}), {}, "only FP8 weights"),
        (NATIVE, {f"{WQ}qscale_weight": None}, "layers.0.attention.wq.weight is stored as F8_E4M3 with 0 scales"),
        (NATIVE, {f"{WQ}weight": np.zeros((127, 128), np.uint8)}, "does not divide into heads"),
        (NATIVE, {"layers__0__extra__qscale_weight": np.ones((), np.float32)}, "has no place in a Mistral model"),
        (NATIVE, {f"{WQ}weight_scale": np.ones((), np.float32)}, "with 2 scales"),
    ],
)  # fmt: skip
def test_damage_is_named_in_one_line(
    tmp_path: Path, spelling: Spelling, changes: dict[str, np.ndarray], message: str
) -> None:
    changes = {name: None if array is None else np.asarray(array) for name, array in changes.items()}
    fp8_folder(tmp_path / "source", spelling, "tensor", **changes)
    with pytest.raises(MistralMLXError, match=message) as caught:
        convert(tmp_path / "source", tmp_path / "target")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_a_rule_of_mistrals_own_that_is_not_fp8_is_refused(tmp_path: Path) -> None:
    fp8_folder(tmp_path / "source", NATIVE, "tensor")
    rule = {"qformat_weight": "int4"}
    (tmp_path / "source" / "params.json").write_text(json.dumps({**PARAMS, "quantization": rule}))
    with pytest.raises(MistralMLXError, match=r"params\.json: quantization is .*only FP8 weights"):
        convert(tmp_path / "source", tmp_path / "target")


def test_running_them_says_to_convert_them(tmp_path: Path) -> None:
    fp8_folder(tmp_path / "source", HF, "tensor")
    with pytest.raises(MistralMLXError, match=r"'fp8'.* convert it first: mistral-mlx convert"):
        inspect_model(ModelFolder(tmp_path / "source"))

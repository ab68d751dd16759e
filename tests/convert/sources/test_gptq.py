"""AWQ and GPTQ checkpoints, packed as AutoAWQ and AutoGPTQ do, and their conversion.

mlx-lm reads both in AutoAWQ's layout; tests/convert/test_mlx_lm.py shows its result for GPTQ.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, write_folder
from helpers.grouped_folders import AWQ, GPTQ, packed_folder, size_of

from mistral_mlx.convert import convert
from mistral_mlx.errors import CheckpointError, MistralMLXError, OptionError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.loading import inspect_model, load_model

IDS = mx.array([[1, 5, 9, 33, 7]])


def unpacked(folder: Path) -> dict[str, np.ndarray]:
    rule = json.loads((folder / "config.json").read_text()).get("quantization", {})
    tensors = mx.load(str(folder / "model.safetensors"))
    found = {}
    for name, tensor in tensors.items():
        path = name.removesuffix(".weight")
        if f"{path}.scales" in tensors:
            packing = rule.get(path, rule)
            scales, biases = (tensors[f"{path}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
            tensor = mx.dequantize(tensor, scales, biases, group_size=packing["group_size"], bits=packing["bits"])
        if name.endswith(".weight"):
            found[name] = np.array(tensor.astype(mx.float32))
    return found


RULES = {
    "awq": AWQ,
    "awq old keys": {"quant_method": "awq", "w_bit": 4, "q_group_size": 64},
    "gptq": GPTQ,
    "gptq sym": {**GPTQ, "sym": True},
    "gptq v2": {**GPTQ, "checkpoint_format": "gptq_v2"},
    "gptq 2 bits": {**GPTQ, "bits": 2, "group_size": 32},
    "gptq 8 bits": {**GPTQ, "bits": 8, "group_size": 128},
    "gptq one group a row": {**GPTQ, "group_size": -1},
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_carried_over_in_float32_they_are_the_same_weights(tmp_path: Path, rule: dict[str, object]) -> None:
    """Bit by bit: float32 holds the products of a code, a zero and an 11-bit scale, and their differences."""
    plain = packed_folder(tmp_path / "source", rule)
    report = convert(tmp_path / "source", tmp_path / "target", dtype="float32")
    found = unpacked(tmp_path / "target")
    assert set(found) == set(plain)
    for name, weight in plain.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)
    assert "without loss" in report.notes[0] and report.errors == []
    assert ("model.layers.1.mlp.down_proj.weight", "the source stores it as F16") in report.kept


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_in_float16_a_bias_is_rounded_within_the_bound_that_is_said(tmp_path: Path, rule: dict[str, object]) -> None:
    plain = packed_folder(tmp_path / "source", rule)
    report = convert(tmp_path / "source", tmp_path / "target")
    bits, _ = size_of(rule)
    steps = mx.load(str(tmp_path / "target" / "model.safetensors"))
    bound = (2**bits - 1) / 2048
    found = unpacked(tmp_path / "target")
    worst = 0.0
    for name, scales in steps.items():
        if name.endswith(".scales"):
            path = name.removesuffix(".scales")
            step = np.repeat(
                np.array(scales.astype(mx.float32)), plain[f"{path}.weight"].shape[1] // scales.shape[1], 1
            )
            worst = max(worst, float((np.abs(found[f"{path}.weight"] - plain[f"{path}.weight"]) / step).max()))
    assert worst <= (1e-5 if rule.get("sym") else bound)
    assert f"rounded to float16, by at most {bound:.2g} of a step" in report.notes[0]


@pytest.mark.usefixtures("exact_products")
def test_they_give_the_logits_of_their_plain_weights(tmp_path: Path) -> None:
    for kind in ("awq", "gptq"):
        plain = packed_folder(tmp_path / kind, RULES[kind])
        write_folder(tmp_path / f"{kind}-plain", weights={name: mx.array(w) for name, w in plain.items()})
        convert(tmp_path / kind, tmp_path / f"{kind}-ours")
        ours, expected = (np.array(load_model(tmp_path / f"{kind}-{end}")(IDS)) for end in ("ours", "plain"))
        np.testing.assert_allclose(ours, expected, atol=5e-3 * np.abs(expected).max())


@pytest.mark.parametrize("rule", [AWQ, GPTQ, {**GPTQ, "desc_act": True}], ids=["awq", "gptq", "desc_act"])
def test_dequantized_they_are_the_plain_weights_bit_by_bit(tmp_path: Path, rule: dict[str, object]) -> None:
    plain = packed_folder(tmp_path / "source", rule)
    convert(tmp_path / "source", tmp_path / "target", dequantize=True, dtype="float32")
    for name, weight in unpacked(tmp_path / "target").items():
        np.testing.assert_array_equal(weight, plain[name], err_msg=name)


@pytest.mark.parametrize("rule", [AWQ, {**GPTQ, "bits": 2, "group_size": 32}, {**GPTQ, "desc_act": True}])
@pytest.mark.parametrize("how", [{}, {"dequantize": True}])
def test_a_few_columns_at_a_time_give_the_bits_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rule: dict[str, object], how: dict[str, bool]
) -> None:
    packed_folder(tmp_path / "source", rule)
    convert(tmp_path / "source", tmp_path / "whole", **how)
    monkeypatch.setattr("mistral_mlx.convert.storage.gptq.COLUMNS", 48)
    convert(tmp_path / "source", tmp_path / "parts", **how)
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_scattered_groups_are_unpacked_and_packed_anew_and_that_is_said(tmp_path: Path) -> None:
    plain = packed_folder(tmp_path / "source", {**GPTQ, "desc_act": True})
    report = convert(tmp_path / "source", tmp_path / "target")
    name = "model.layers.0.mlp.up_proj.weight"
    packed = mx.load(str(tmp_path / "target" / "model.safetensors"))[name]
    assert mx.array_equal(packed, mx.quantize(mx.array(plain[name]).astype(mx.float16), group_size=64, bits=4)[0])
    assert report.notes[0].startswith("groups are scattered over the rows (desc_act)")
    assert "GPTQ weights are quantized again, loss upon loss" in report.notes[1]


def test_groups_mlx_does_not_know_are_packed_anew(tmp_path: Path) -> None:
    packed_folder(tmp_path / "source", {**GPTQ, "group_size": 16})
    assert "quantized again, loss upon loss" in convert(tmp_path / "source", tmp_path / "target").notes[0]


def test_bits_quantize_again_and_bfloat16_is_refused(tmp_path: Path) -> None:
    packed_folder(tmp_path / "source", AWQ)
    report = convert(tmp_path / "source", tmp_path / "target", bits=8)
    assert "AWQ weights are quantized again; they are carried over" in report.notes[0]
    with pytest.raises(OptionError, match="'bfloat16', which cannot hold the scales"):
        convert(tmp_path / "source", tmp_path / "other", dtype="bfloat16")


UP = "model__layers__0__mlp__up_proj__"  # [256, 128]


def test_biases_of_zero_are_left_out_and_others_refused(tmp_path: Path) -> None:
    packed_folder(tmp_path / "zero", GPTQ, **{f"{UP}bias": np.zeros(256, np.float16)})
    assert convert(tmp_path / "zero", tmp_path / "target").notes[0] == "the biases are left out: all of them are zero"
    packed_folder(tmp_path / "other", GPTQ, **{f"{UP}bias": np.ones(256, np.float16)})
    with pytest.raises(CheckpointError, match=r"up_proj\.bias is a bias"):
        convert(tmp_path / "other", tmp_path / "another")


@pytest.mark.parametrize(
    ("rule", "changes", "message"),
    [
        (GPTQ, {f"{UP}scales": None}, "up_proj.scales is missing"),
        (AWQ, {f"{UP}qzeros": None}, "up_proj.qzeros is missing"),
        (GPTQ, {f"{UP}qweight": None}, "up_proj.(qzeros|scales|g_idx) has no qweight beside it"),
        (GPTQ, {f"{UP}qweight": np.zeros((0, 256), np.int32)}, r"up_proj.qweight has the impossible shape \[0, 256\]"),
        (GPTQ, {f"{UP}qweight": np.zeros(256, np.int32)}, r"up_proj.qweight has the impossible shape \[256\]"),
        (GPTQ, {f"{UP}qweight": np.zeros((16, 256), np.float32)}, "up_proj.qweight is F32"),
        (GPTQ, {f"{UP}scales": np.ones((3, 256), np.float16)}, r"scales is F16 \[3, 256\]; .* F32 \[2, 256\]"),
        (GPTQ, {f"{UP}qzeros": np.zeros((2, 31), np.int32)}, r"qzeros is I32 \[2, 31\]; .* I32 \[2, 32\]"),
        (GPTQ, {f"{UP}scales": np.full((2, 256), np.nan, np.float16)}, "up_proj.weight has a group whose scale is not"),
        (AWQ, {f"{UP}scales": np.full((2, 256), np.inf, np.float16)}, "up_proj.weight has a group whose scale is not"),
        (AWQ, {f"{UP}scales": np.full((2, 256), 3e4, np.float16)}, "too large for float16.*--dtype float32"),
        (GPTQ, {f"{UP}g_idx": np.full(128, 2, np.int32)}, "g_idx names groups from 2 to 2; there are 2"),
        (GPTQ, {f"{UP}g_idx": np.full(128, -1, np.int32)}, "g_idx names groups from -1 to -1"),
        (GPTQ, {f"{UP}g_idx": np.zeros(127, np.int32)}, r"g_idx is I32 \[127\]; the qweight implies I32 \[128\]"),
        ({**GPTQ, "desc_act": True}, {f"{UP}g_idx": None}, "up_proj.g_idx is missing, and config.json says desc_act"),
        (GPTQ, {f"{UP}weight": np.ones((256, 128), np.float16)}, "has both a weight and a qweight"),
        ({**GPTQ, "group_size": -64}, {}, "group_size is -64; a whole number from 1, or -1"),
        ({**GPTQ, "group_size": 0}, {}, "group_size is 0"),
        ({**GPTQ, "group_size": 1 << 60}, {}, r"the qweight and config.json imply I32 \[1, "),
        ({**GPTQ, "bits": 3}, {}, "bits is 3; GPTQ of"),
        ({**AWQ, "bits": 8}, {}, "bits is 8; AWQ of"),
        ({**AWQ, "version": "gemv"}, {}, "awq format 'gemv'; supported are 'gemm'"),
        ({**GPTQ, "checkpoint_format": "marlin"}, {}, "gptq format 'marlin'"),
        ({**GPTQ, "is_marlin_format": True}, {}, "is_marlin_format is True"),
        ({**GPTQ, "dynamic": {"-:lm_head": {}}}, {}, "dynamic is"),
    ],
)  # fmt: skip
def test_damage_is_named_in_one_line(
    tmp_path: Path, rule: dict[str, object], changes: dict[str, np.ndarray], message: str
) -> None:
    usual = rule if int(rule["group_size"]) in (-1, 64) and rule["bits"] == 4 else {**rule, "group_size": 64, "bits": 4}
    packed_folder(tmp_path / "source", usual, **changes)
    config = {**CONFIG, "quantization_config": rule}
    (tmp_path / "source" / "config.json").write_text(json.dumps(config))
    with pytest.raises(MistralMLXError, match=message) as caught:
        convert(tmp_path / "source", tmp_path / "target")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]


def test_a_rule_without_packed_tensors_is_refused(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source")
    (source / "config.json").write_text(json.dumps({**CONFIG, "quantization_config": GPTQ}))
    with pytest.raises(CheckpointError, match=r"config.json says GPTQ, but no tensor is a qweight"):
        convert(source, tmp_path / "target")


def test_running_them_says_to_convert_them(tmp_path: Path) -> None:
    packed_folder(tmp_path / "source", AWQ)
    with pytest.raises(MistralMLXError, match=r"'awq'.* convert it first: mistral-mlx convert"):
        inspect_model(ModelFolder(tmp_path / "source"))

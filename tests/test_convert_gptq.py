"""AWQ and GPTQ checkpoints, packed here as AutoAWQ and AutoGPTQ pack, and what the converter makes of them.

mlx-lm reads both by AutoAWQ's layout; what that makes of GPTQ's is shown in test_convert_mlx_lm.py.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from convert_sources import CONFIG, random_weights, write_folder, write_safetensors

from mistral_mlx.convert import convert
from mistral_mlx.errors import CheckpointError, MistralMLXError, OptionError
from mistral_mlx.folder import ModelFolder
from mistral_mlx.loading import inspect_model, load_model

IDS = mx.array([[1, 5, 9, 33, 7]])
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 64, "zero_point": True, "version": "GEMM"}
GPTQ = {"quant_method": "gptq", "bits": 4, "group_size": 64, "sym": False, "desc_act": False}


def pack_rows(codes: np.ndarray, bits: int, order: list[int]) -> np.ndarray:
    """Words of the codes that follow one another in a row, `order` saying which comes first: [n, m] -> [n, m / 8]."""
    words = np.zeros((len(codes), codes.shape[1] * bits // 32), np.uint32)
    for i, place in enumerate(order):
        words |= codes[:, place :: len(order)].astype(np.uint32) << np.uint32(bits * i)
    return words.view(np.int32)


def size_of(rule: dict[str, object]) -> tuple[int, int]:
    return int(rule.get("bits", rule.get("w_bit"))), int(rule.get("group_size", rule.get("q_group_size")))


def packed_tensor(weight: np.ndarray, rule: dict[str, object], order: np.ndarray | None) -> dict[str, np.ndarray]:
    """Quantize [out, in] with a scale and a zero per group; return the parts as stored, and "plain", their weights."""
    bits, size = size_of(rule)
    weight = np.concatenate([np.abs(weight[:1]), weight[1:]])  # a row whose zero is 0
    n_in = weight.shape[1]
    size = n_in if size == -1 else size
    index = np.arange(n_in) // size if order is None else order
    top = 2**bits - 1
    groups = [weight[:, index == g] for g in range(n_in // size)]
    low = np.array([g.min(axis=1) for g in groups]).clip(max=0)  # [groups, out]
    high = np.array([g.max(axis=1) for g in groups]).clip(min=0)
    scales = np.maximum((high - low) / top, 1e-5).astype(np.float16)
    zeros = np.full_like(low, 2 ** (bits - 1)) if rule.get("sym") else np.round(-low / scales).clip(0, top)
    codes = np.round(weight.T / scales[index].astype(np.float32) + zeros[index]).clip(0, top)  # [in, out]
    plain = ((codes - zeros[index]) * scales[index].astype(np.float64)).T.astype(np.float32)
    straight = list(range(32 // bits))
    if rule["quant_method"] == "awq":
        swapped = [0, 2, 4, 6, 1, 3, 5, 7]
        return {"qweight": pack_rows(codes, 4, swapped), "qzeros": pack_rows(zeros, 4, swapped), "scales": scales,
                "plain": plain}  # fmt: skip
    less = 0 if rule.get("checkpoint_format") == "gptq_v2" else 1
    return {
        "qweight": np.ascontiguousarray(pack_rows(codes.T, bits, straight).T),
        "qzeros": pack_rows((zeros.astype(int) - less) & top, bits, straight),
        "scales": scales,
        "g_idx": index.astype(np.int32),
        "plain": plain,
    }


def packed_folder(path: Path, rule: dict[str, object], **changes: np.ndarray | None) -> dict[str, np.ndarray]:
    """Write a folder whose projections but one are packed; return its weights under Hugging Face's names."""
    tensors, plain = {}, {}
    orders = np.random.default_rng(5)
    for name, weight in random_weights(CONFIG).items():
        if "proj" not in name or name == "model.layers.1.mlp.down_proj.weight":  # one of modules_to_not_convert
            tensors[name] = weight.astype(np.float16)
            plain[name] = tensors[name].astype(np.float32)
            continue
        order = None
        if rule.get("desc_act"):
            order = orders.permutation(np.arange(weight.shape[1]) // int(rule["group_size"]))
        parts = packed_tensor(weight, rule, order)
        plain[name] = parts.pop("plain")
        tensors |= {f"{name.removesuffix('.weight')}.{part}": array for part, array in parts.items()}
    for name, array in changes.items():
        tensors[name.replace("__", ".")] = array
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**CONFIG, "torch_dtype": "float16", "quantization_config": rule}))
    write_safetensors(path / "model.safetensors", {n: a for n, a in tensors.items() if a is not None}, {})
    return plain


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
    monkeypatch.setattr("mistral_mlx.convert.sources.gptq.COLUMNS", 48)
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

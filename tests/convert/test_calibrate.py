"""Calibrated conversion: streamed pass, compensated rounding, target size, bad texts."""

import json
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, random_weights, write_folder
from helpers.tokenizer_files import byte_level_json, write_json

from mistral_mlx import kernels
from mistral_mlx.convert import convert
from mistral_mlx.convert.rounding import inputs as calibrate
from mistral_mlx.convert.rounding import text as convert_text
from mistral_mlx.convert.rounding.compensate import DAMPING, compensated
from mistral_mlx.convert.rounding.inputs import Inputs
from mistral_mlx.convert.rounding.sensitivity import kinds, sensitivities
from mistral_mlx.convert.rounding.streamed import source_logits
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.errors import CheckpointError, OptionError, TokenizerError
from mistral_mlx.kernels.fallback.packing import Quantized, decode, floats
from mistral_mlx.measure.evaluation import evaluate, model_logits, windows
from mistral_mlx.model.loading import load
from mistral_mlx.model.packing import Packing

TOKENIZER = json.loads(byte_level_json())
VOCABULARY = 1 + max(TOKENIZER["model"]["vocab"].values())
TEXT = "The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 40
RNG = np.random.default_rng


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(calibrate, "CONTEXT", 64)
    config = {**CONFIG, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "torch_dtype": "float16"}
    weights = {n: mx.array(w * 4).astype(mx.float16) for n, w in random_weights(config).items()}
    folder = write_folder(tmp_path / "source", config, weights=weights)
    write_json(folder, "tokenizer.json", TOKENIZER)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text(TEXT)
    return tmp_path / "text.txt"


def correlated(n: int, columns: int) -> np.ndarray:
    """Inputs whose channels differ in size and go together, as those of a model do."""
    mixing = RNG(1).normal(size=(columns // 4, columns)) * np.linspace(0.1, 3, columns)
    return (RNG(2).normal(size=(n, columns // 4)) @ mixing + RNG(3).normal(size=(n, columns)) * 0.1).astype(np.float32)


def unpacked(packed: Quantized, bits: int, group: int) -> np.ndarray:
    assert packed.biases is not None
    scales, biases = (decode(part, "F16").astype(mx.float32) for part in (packed.scales, packed.biases))
    weight = mx.array(packed.weight.view("<u4"))
    return np.array(mx.dequantize(weight, scales, biases, group_size=group, bits=bits))


def output_error(weight: np.ndarray, rounded: np.ndarray, x: np.ndarray) -> float:
    return float(np.square((weight - rounded).astype(np.float64) @ x.T.astype(np.float64)).sum())


def test_the_streamed_pass_gives_the_logits_of_the_whole_model(source: Path, tmp_path: Path) -> None:
    model = load(source)[0]
    chunks = windows(RNG(0).integers(0, VOCABULARY, 130).tolist(), context=40)
    for chunk in chunks:
        (ours,) = source_logits(open_source(source), chunks)(chunk)
        whole = mx.concatenate(list(model_logits(model)(chunk)))
        assert ours.shape == (len(chunk.targets), VOCABULARY)
        np.testing.assert_allclose(np.array(ours), np.array(whole), rtol=0, atol=2e-3 * float(mx.abs(whole).max()))


@pytest.mark.parametrize("bits", [2, 3, 4, 6, 8])
def test_compensated_loses_less_than_searched_and_that_less_than_nearest(bits: int) -> None:
    weight, x = RNG(0).normal(size=(48, 128)).astype(np.float32), correlated(512, 128)
    inputs = Inputs(128)
    inputs.add(x)
    rows = weight.view(np.uint8)
    errors = [
        output_error(weight, unpacked(packed, bits, 32), x)
        for packed in (
            compensated(weight, inputs, Packing(bits, 32), "F16"),
            kernels.quantize(rows, "F32", "F16", group_size=32, bits=bits, search=True, importance=inputs.squares),
            kernels.quantize(rows, "F32", "F16", group_size=32, bits=bits),
        )
    ]
    assert errors[0] < 0.5 * errors[1] and errors[1] < errors[2]


def naive(weight: np.ndarray, x: np.ndarray, packed: Quantized, bits: int, group: int) -> np.ndarray:
    """Optimal Brain Quantization of columns in order (Frantar et al., 2022), in float64 and with an inverse per column,
    on the scales and biases of `packed`."""
    w, (_, columns) = weight.astype(np.float64), weight.shape
    h = x.T.astype(np.float64) @ x
    h[np.diag_indices(columns)] += DAMPING * np.mean(np.diag(h))
    assert packed.biases is not None
    scales, biases = (floats(decode(part, "F16")).astype(np.float64) for part in (packed.scales, packed.biases))
    for k in range(columns):
        inverse = np.linalg.inv(h[k:, k:])
        scale, bias = scales[:, k // group], biases[:, k // group]
        rounded = np.clip(np.rint((w[:, k] - bias) / scale), 0, 2**bits - 1) * scale + bias
        w[:, k + 1 :] -= np.outer((w[:, k] - rounded) / inverse[0, 0], inverse[0, 1:])
        w[:, k] = rounded
    return w


@pytest.mark.parametrize("n_in", [64, 96])
def test_compensation_is_that_of_the_definition(n_in: int) -> None:
    weight, x = RNG(0).normal(size=(8, n_in)).astype(np.float32), correlated(256, n_in)
    inputs = Inputs(n_in)
    inputs.add(x)
    packed = compensated(weight, inputs, Packing(4, 32), "F16")
    same = np.isclose(unpacked(packed, 4, 32), naive(weight, x, packed, 4, 32), atol=1e-4)
    assert same.mean() > 0.98  # a tie that falls otherwise changes what comes behind it


def test_wide_inputs_are_taken_in_parts_that_cut_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calibrate, "WIDTH", 256)
    inputs, x = Inputs(640), correlated(64, 640)
    inputs.add(x)
    assert inputs.spans == [(0, 256), (256, 512), (512, 640)]
    np.testing.assert_allclose(inputs.squares, np.square(x).sum(0), rtol=1e-4)
    weight = RNG(0).normal(size=(4, 640)).astype(np.float32)
    packed = compensated(weight, inputs, Packing(4, 128), "F16")
    assert np.abs(unpacked(packed, 4, 128) - weight).max() < 1


def test_inputs_that_are_never_there_do_no_harm() -> None:
    weight, inputs = RNG(0).normal(size=(4, 64)).astype(np.float32), Inputs(64)
    inputs.add(np.zeros((3, 64), np.float32))
    assert np.abs(unpacked(compensated(weight, inputs, Packing(4, 32), "F16"), 4, 32) - weight).max() < 1


def test_a_text_makes_a_better_model_of_the_same_size(source: Path, text: Path, tmp_path: Path) -> None:
    plain = convert(source, tmp_path / "plain", bits=3)
    better = convert(source, tmp_path / "better", bits=3, calibrate=text)
    assert plain.target_bytes == better.target_bytes
    chunks = calibrate.calibration_windows(open_source(source), text)[:2]
    reference = source_logits(open_source(source), chunks)

    def loss(folder: Path) -> float:
        comparison = evaluate(chunks, model_logits(load(folder)[0]), reference).comparison
        assert comparison is not None
        return comparison.kl.value

    assert loss(tmp_path / "better") < 0.7 * loss(tmp_path / "plain")


def test_the_same_text_gives_the_same_files(source: Path, text: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        convert(source, tmp_path / name, target_bpw=4.6, calibrate=text)
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()


@pytest.mark.parametrize("target", [3.5, 4.5, 5.25, 6.75])
def test_the_size_that_was_asked_for_is_met_from_below(source: Path, tmp_path: Path, target: float) -> None:
    report = convert(source, tmp_path / "target", target_bpw=target)
    assert target - 0.1 < report.bits_per_weight <= target
    load(tmp_path / "target")


def test_more_bits_go_where_the_text_says_they_count(source: Path, text: Path, tmp_path: Path) -> None:
    found = open_source(source)
    costs = sensitivities(found, calibrate.calibration_windows(found, text), lambda done, of: None)
    assert set(costs) == {f"model.layers.{i}.{kind}" for i in (0, 1) for kind in kinds(found.args)} | {
        "model.embed_tokens",
        "lm_head",
    }
    assert min(costs.values()) > 0
    convert(source, tmp_path / "target", target_bpw=4.5, calibrate=text, rules=["q_proj=8:32"])
    rule = json.loads((tmp_path / "target" / "config.json").read_text())["quantization"]
    assert rule["model.layers.0.self_attn.q_proj"] == {"bits": 8, "group_size": 32, "mode": "affine"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b" \n\t", "is empty"),
        (b"ab\xff\xfe", "byte 2"),
        (b"too short", r"tokens; at least 64"),
        (None, "read"),
    ],
)
def test_what_is_no_text_ends_in_one_line(source: Path, tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "bad").write_bytes(content)
    with pytest.raises(OptionError, match=message) as raised:
        convert(source, tmp_path / "target", calibrate=tmp_path / "bad")
    assert "\n" not in str(raised.value) and not (tmp_path / "target").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "compensate"}, "--calibrate"),
        ({"method": "best"}, "nearest, search, compensate, awq, gptq or dwq"),
        ({"target_bpw": 4.5, "bits": 4}, "leave it out"),
        ({"target_bpw": float("nan")}, "2.25 to 9"),
        ({"target_bpw": 1.0}, "2.25 to 9"),
        ({"target_bpw": 2.26}, "takes at least"),
    ],
)
def test_options_that_cannot_be_end_in_one_line(
    source: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(OptionError, match=message):
        convert(source, tmp_path / "target", **options)


def test_a_long_text_is_read_as_far_as_it_counts(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convert_text, "MAX_NBYTES", 301)
    (tmp_path / "long").write_bytes("é".encode() * 1000 + b"\xff")  # the 301st byte is half a letter
    (tmp_path / "short").write_bytes("é".encode() * 150)
    long, short = (calibrate.calibration_windows(open_source(source), tmp_path / name) for name in ("long", "short"))
    assert long == short


@pytest.mark.parametrize("options", [{"dequantize": True}, {"mode": "mxfp4"}, {"rules": [".=none"]}])
@pytest.mark.parametrize("method", ["search", "compensate"])
def test_a_method_that_would_change_nothing_is_a_mistake(
    source: Path, text: Path, tmp_path: Path, options: dict[str, object], method: str
) -> None:
    with pytest.raises(OptionError, match=f"method {method} rounds affine codes, and none are made here"):
        convert(source, tmp_path / "target", method=method, calibrate=text, **options)


def test_nearest_uses_no_text(source: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="uses no text"):
        convert(source, tmp_path / "target", method="nearest", calibrate=text)


def test_without_a_tokenizer_there_is_nothing_to_calibrate_with(source: Path, text: Path, tmp_path: Path) -> None:
    (source / "tokenizer.json").unlink()
    with pytest.raises(TokenizerError, match="the source has no tokenizer"):
        convert(source, tmp_path / "target", calibrate=text)


def test_a_source_that_gives_no_numbers_ends_in_one_line(source: Path, text: Path, tmp_path: Path) -> None:
    weights = dict(mx.load(str(source / "model.safetensors")))
    weights["model.layers.1.mlp.up_proj.weight"] = mx.full((256, 128), float("nan"), mx.float16)
    mx.save_safetensors(str(source / "model.safetensors"), weights)
    with pytest.raises(CheckpointError, match="block 1 of the source gives NaN"):
        convert(source, tmp_path / "target", calibrate=text)
    assert not (tmp_path / "target").exists()


def test_rows_that_are_compensated_in_turns_come_out_the_same(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    convert(source, tmp_path / "first", calibrate=text)
    monkeypatch.setattr("mistral_mlx.convert.sources.source.BLOCK_WEIGHTS", 32 * 128)
    monkeypatch.setattr("mistral_mlx.convert.write.quantize.TOGETHER", 3)
    convert(source, tmp_path / "second", calibrate=text)
    first, second = (mx.load(str(tmp_path / name / "model.safetensors")) for name in ("first", "second"))
    name = "model.layers.0.mlp.down_proj.weight"
    assert first[name].shape == second[name].shape
    assert float(mx.mean(first[name] == second[name])) > 0.95  # sums of other shapes round otherwise


def test_ctrl_c_while_calibrating_leaves_nothing(source: Path, text: Path, tmp_path: Path) -> None:
    def stop(name: str, done: int, total: int) -> None:
        if name.startswith("calibrated"):
            raise KeyboardInterrupt

    before = sorted(tmp_path.iterdir())
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "target", calibrate=text, progress=stop)
    assert sorted(tmp_path.iterdir()) == before


def test_a_source_that_is_read_in_small_blocks_gives_the_same(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = open_source(source)
    chunks = calibrate.calibration_windows(found, text)[:1]
    (whole,) = source_logits(found, chunks)(chunks[0])
    monkeypatch.setattr("mistral_mlx.convert.sources.source.BLOCK_WEIGHTS", 128)
    (parts,) = source_logits(found, [replace(chunks[0])])(chunks[0])
    np.testing.assert_allclose(np.array(whole), np.array(parts), rtol=1e-5, atol=1e-5)

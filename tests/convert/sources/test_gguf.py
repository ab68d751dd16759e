"""GGUF files from the gguf library's writer and quantizer, and their conversion."""

import json
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, add_weights, close, gguf_writer, permuted, random_weights
from helpers.plain_gguf import plain

from mistral_mlx.convert import convert
from mistral_mlx.errors import CheckpointError, ConfigError, ConversionError, OptionError

MIXED = {"model.embed_tokens.weight": "Q8_0", "lm_head.weight": "F16", "model.layers.1.mlp.up_proj.weight": "Q4_0"}
EVERYTHING_ELSE = "Q4_1"


@pytest.fixture
def mixed(tmp_path: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """A file with every packed kind in it, and its weights as gguf itself unpacks them."""
    weights = random_weights(CONFIG)
    writer = gguf_writer(tmp_path / "mixed.gguf")
    stored = add_weights(writer, weights, dict.fromkeys(weights, EVERYTHING_ELSE) | MIXED)
    return close(writer), stored


def unpacked(folder: Path) -> dict[str, np.ndarray]:
    """All weights of a converted folder in float32, packed ones as MLX unpacks them."""
    config = json.loads((folder / "config.json").read_text())
    rule = config.get("quantization", {})
    tensors = mx.load(str(folder / "model.safetensors"))
    found = {}
    for name, tensor in tensors.items():
        path = name.removesuffix(".weight")
        if not name.endswith(".weight"):
            continue
        if f"{path}.scales" in tensors:
            packing = rule.get(path, rule)
            scales, biases = (tensors[f"{path}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
            tensor = mx.dequantize(tensor, scales, biases, group_size=packing["group_size"], bits=packing["bits"])
        found[name] = np.array(tensor.astype(mx.float32))
    return found


def assert_equal(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert set(found) == set(expected)
    for name, weight in expected.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)


def test_packed_tensors_are_carried_over_without_loss(
    tmp_path: Path, mixed: tuple[Path, dict[str, np.ndarray]]
) -> None:
    path, stored = mixed
    report = convert(path, tmp_path / "target")
    assert_equal(unpacked(tmp_path / "target"), stored)
    assert report.errors == []
    assert report.kept == [("lm_head.weight", "the source stores it as F16")]
    assert report.notes[0] == "the source's Q4_0, Q4_1, Q8_0 weights are carried over without loss (group size 32)"


def test_config_is_rebuilt_from_the_metadata(tmp_path: Path, mixed: tuple[Path, dict[str, np.ndarray]]) -> None:
    convert(mixed[0], tmp_path / "target")
    rule = {
        "group_size": 32,
        "bits": 4,
        "mode": "affine",
        "model.embed_tokens": {"group_size": 32, "bits": 8, "mode": "affine"},
    }
    rebuilt = {key: value for key, value in CONFIG.items() if key != "sliding_window"} | {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "torch_dtype": "float16",
        "quantization": rule,
        "quantization_config": rule,
    }
    assert json.loads((tmp_path / "target" / "config.json").read_text()) == rebuilt


def test_scales_may_be_float32_but_not_bfloat16(tmp_path: Path, mixed: tuple[Path, dict[str, np.ndarray]]) -> None:
    path, stored = mixed
    convert(path, tmp_path / "target", dtype="float32")
    assert_equal(unpacked(tmp_path / "target"), stored)
    with pytest.raises(OptionError, match="bfloat16"):
        convert(path, tmp_path / "other", dtype="bfloat16")


@pytest.mark.parametrize("asked", [{"bits": 4}, {"group_size": 64}])
def test_asking_for_bits_or_groups_quantizes_again_and_says_so(
    tmp_path: Path, mixed: tuple[Path, dict[str, np.ndarray]], asked: dict[str, int]
) -> None:
    path, stored = mixed
    report = convert(path, tmp_path / "target", **asked)
    expected = {}
    for name, weight in stored.items():
        half = mx.array(weight).astype(mx.float16)
        packed = mx.quantize(half, group_size=64, bits=4) if weight.ndim == 2 else None
        expected[name] = np.array(
            mx.dequantize(packed[0], *(p.astype(mx.float32) for p in packed[1:]), group_size=64, bits=4)
            if packed
            else weight
        )
    assert_equal(unpacked(tmp_path / "target"), expected)
    assert "quantized again" in report.notes[0] and len(report.errors) == 16


@pytest.mark.parametrize(("kind", "dtype"), [("F32", mx.float32), ("F16", mx.float16), ("BF16", mx.bfloat16)])
def test_plain_files_are_quantized_and_norms_keep_float32(tmp_path: Path, kind: str, dtype: mx.Dtype) -> None:
    report = convert(plain(tmp_path / "plain.gguf", kind), tmp_path / "target")
    tensors = mx.load(str(tmp_path / "target" / "model.safetensors"))
    weights = random_weights(CONFIG)
    name = "model.layers.1.self_attn.k_proj"
    expected = mx.quantize(mx.array(weights[f"{name}.weight"]).astype(dtype), group_size=64, bits=4)
    for part, array in zip(("weight", "scales", "biases"), expected, strict=True):
        assert mx.array_equal(tensors[f"{name}.{part}"], array) and tensors[f"{name}.{part}"].dtype == array.dtype
    assert tensors["model.norm.weight"].dtype == mx.float32
    assert report.notes == ["no tokenizer was found: the target works with token ids only"]


def test_rows_of_a_head_are_put_back_in_order_by_hand() -> None:
    from mistral_mlx.convert.storage.heads import restore_rotary

    stored = np.array([[0], [3], [1], [4], [2], [5], [10], [13], [11], [14], [12], [15]], np.uint8)
    assert restore_rotary(stored, 6)[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 10, 11, 12, 13, 14, 15]
    rows = np.arange(12, dtype=np.uint8)[:, None]
    np.testing.assert_array_equal(restore_rotary(permuted(rows, 2), 6), rows)


def test_heads_stay_whole_whatever_the_block(
    tmp_path: Path, mixed: tuple[Path, dict[str, np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistral_mlx.convert.sources.source.BLOCK_WEIGHTS", 128 * 33)
    convert(mixed[0], tmp_path / "target")
    assert_equal(unpacked(tmp_path / "target"), mixed[1])


def test_an_absent_output_ties_the_head(tmp_path: Path) -> None:
    config = {**CONFIG, "tie_word_embeddings": True}
    convert(plain(tmp_path / "tied.gguf", "Q8_0", config=config), tmp_path / "target")
    assert json.loads((tmp_path / "target" / "config.json").read_text())["tie_word_embeddings"] is True
    assert "lm_head.weight" not in unpacked(tmp_path / "target")


def test_a_window_is_honoured(tmp_path: Path) -> None:
    convert(plain(tmp_path / "windowed.gguf", attention__sliding_window=16), tmp_path / "target")
    config = json.loads((tmp_path / "target" / "config.json").read_text())
    assert (config["model_type"], config["sliding_window"]) == ("mistral", 16)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rope__scaling__type", "linear"), ("rope__scaling__factor", 4.0), ("expert_used_count", 2),
        ("logit_scale", 0.5), ("attention__clamp_kqv", 1.0), ("rope__dimension_count", 16),
        ("attention__value_length", 64),
    ],
)  # fmt: skip
def test_a_key_that_changes_the_graph_is_refused_by_name(tmp_path: Path, key: str, value: object) -> None:
    writer = gguf_writer(tmp_path / "odd.gguf")
    name = "llama." + key.replace("__", ".")
    writer.kv_data[0].pop(name, None)
    add = (
        writer.add_string
        if isinstance(value, str)
        else writer.add_uint32
        if isinstance(value, int)
        else writer.add_float32
    )
    add(name, value)
    add_weights(writer, random_weights(CONFIG), "F32")
    with pytest.raises(ConfigError, match=name):
        convert(close(writer), tmp_path / "target")


def test_neutral_keys_are_accepted(tmp_path: Path) -> None:
    path = plain(tmp_path / "x.gguf", rope__scaling__type="none", rope__scaling__factor=1.0, expert_count=0)
    assert convert(path, tmp_path / "target").parameters == sum(w.size for w in random_weights(CONFIG).values())


@pytest.mark.parametrize(("factors", "ok"), [([1.0] * 16, True), ([1.0] * 15 + [8.0], False)])
def test_rope_factors_are_dropped_only_when_they_do_nothing(tmp_path: Path, factors: list[float], ok: bool) -> None:
    writer = gguf_writer(tmp_path / "factors.gguf")
    writer.add_tensor("rope_freqs.weight", np.array(factors, np.float32))
    add_weights(writer, random_weights(CONFIG), "F32")
    path = close(writer)
    if ok:
        assert "rope_freqs.weight is left out: all its factors are 1" in convert(path, tmp_path / "target").notes
    else:
        with pytest.raises(CheckpointError, match=r"rope_freqs\.weight"):
            convert(path, tmp_path / "target")


def test_other_architectures_and_tensors_are_refused_by_name(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "phi.gguf", "phi3")
    writer.add_tensor("token_embd.weight", np.zeros((4, 4), np.float32))
    with pytest.raises(ConfigError, match=r"general\.architecture phi3"):
        convert(close(writer), tmp_path / "target")
    writer = gguf_writer(tmp_path / "biased.gguf")
    writer.add_tensor("blk.0.attn_q.bias", np.zeros(128, np.float32))
    add_weights(writer, random_weights(CONFIG), "F32")
    with pytest.raises(CheckpointError, match=r"blk\.0\.attn_q\.bias has no place"):
        convert(close(writer), tmp_path / "target")


@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q8_0"])
def test_a_block_whose_scale_is_not_finite_is_refused_with_the_tensor(tmp_path: Path, kind: str) -> None:
    weights = random_weights(CONFIG)
    weights["lm_head.weight"][3, 5] = np.inf
    writer = gguf_writer(tmp_path / "inf.gguf")
    with np.errstate(all="ignore"):
        add_weights(writer, weights, kind)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight has a " + kind):
        convert(close(writer), tmp_path / "target")
    assert [p.name for p in tmp_path.iterdir()] == ["inf.gguf"]


def test_a_folder_with_one_gguf_is_that_file_and_with_two_is_a_question(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    plain(folder / "a.gguf", "Q8_0")
    assert convert(folder, tmp_path / "target").bits_per_weight > 8
    (folder / "b.gguf").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"2 GGUF files; name one, such as a\.gguf"):
        convert(folder, tmp_path / "other")


def test_the_header_agrees_with_the_gguf_library(tmp_path: Path) -> None:
    from mistral_mlx.convert.sources.gguf.header import read_gguf_header

    writer = gguf_writer(tmp_path / "all.gguf")
    writer.add_array("x.texts", ["a", "é", ""])
    writer.add_array("x.floats", [0.5, 1.5])
    writer.add_bool("x.flag", True)
    writer.add_int8("x.negative", -3)
    add_weights(writer, random_weights(CONFIG), MIXED)
    path = close(writer)
    ours, theirs = read_gguf_header(path), gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in theirs.fields.items() if not name.startswith("GGUF.")}
    assert ours.metadata == fields
    described = [(t.name, t.tensor_type.name, t.data_offset, t.n_bytes) for t in theirs.tensors]
    assert [(t.name, t.kind, t.start, t.nbytes) for t in ours.tensors] == described


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path) -> None:
    writer = gguf_writer(tmp_path / "large.gguf")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([chr(i + 60) for i in range(64)] + ["aa"])
    writer.add_token_merges(["a a"])
    add_weights(writer, random_weights(CONFIG), "F32")
    with pytest.raises(ConversionError, match="65 tokens and the embedding only 64 rows"):
        convert(close(writer), tmp_path / "target")

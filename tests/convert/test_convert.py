"""Converted folders of safetensors, compared as a whole with MLX's own results."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.arrays import arrays
from helpers.convert_sources import CONFIG, random_weights, write_folder
from helpers.tokenizer_files import byte_level_json, tekken_document, tekken_folder, write_json

from mistral_mlx.convert import convert
from mistral_mlx.errors import ConversionError, ModelError, OptionError, TokenizerError
from mistral_mlx.files.safetensors import ITEM_BITS, read_header
from mistral_mlx.model.loading import load

MLX_DTYPES = {"float16": mx.float16, "bfloat16": mx.bfloat16, "float32": mx.float32}


def expected_arrays(weights: dict[str, mx.array], bits: int, group_size: int, dtype: mx.Dtype) -> dict[str, mx.array]:
    """What quantizing whole tensors with MLX gives."""
    found = {}
    for name, weight in weights.items():
        weight = weight.astype(dtype)
        if weight.ndim == 1 or weight.shape[-1] % group_size:
            found[name] = weight
            continue
        path = name.removesuffix(".weight")
        parts = mx.quantize(weight, group_size=group_size, bits=bits)
        found |= zip((name, f"{path}.scales", f"{path}.biases"), parts, strict=True)
    return found


def assert_same_bits(found: dict[str, mx.array], expected: dict[str, mx.array]) -> None:
    assert {name: (a.dtype, a.shape) for name, a in found.items()} == {
        n: (a.dtype, a.shape) for n, a in expected.items()
    }
    for name, array in found.items():
        assert mx.array_equal(array.view(mx.uint8), expected[name].view(mx.uint8)), name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "source")


def changed(tmp_path: Path, config: dict[str, object] | None = None, **weights: np.ndarray | None) -> Path:
    """A folder whose weights (name with underscores for dots) or config keys are other than usual; None removes one."""
    config = {**CONFIG, **(config or {})}
    tensors = random_weights({**CONFIG, "tie_word_embeddings": False}) | {
        name.replace("__", "."): weight for name, weight in weights.items()
    }
    return write_folder(
        tmp_path / "changed",
        {key: value for key, value in config.items() if value != "absent"},
        weights={name: mx.array(w) for name, w in tensors.items() if w is not None},
    )


@pytest.mark.parametrize("dtype", MLX_DTYPES)
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_packed_tensors_are_bit_equal_to_mx_quantize(tmp_path: Path, dtype: str, bits: int, group_size: int) -> None:
    weights = {name: mx.array(w).astype(MLX_DTYPES[dtype]) for name, w in random_weights(CONFIG).items()}
    source = write_folder(tmp_path / "source", {**CONFIG, "torch_dtype": dtype}, weights=weights, shards=3)
    convert(source, tmp_path / "target", bits=bits, group_size=group_size)
    assert_same_bits(arrays(tmp_path / "target"), expected_arrays(weights, bits, group_size, MLX_DTYPES[dtype]))


@pytest.mark.parametrize("dtype", MLX_DTYPES)
def test_dtype_is_that_of_scales_biases_and_kept_weights(tmp_path: Path, source: Path, dtype: str) -> None:
    convert(source, tmp_path / "target", dtype=dtype)
    weights = {name: mx.array(w) for name, w in random_weights(CONFIG).items()}
    assert_same_bits(arrays(tmp_path / "target"), expected_arrays(weights, 4, 64, MLX_DTYPES[dtype]))
    assert json.loads((tmp_path / "target" / "config.json").read_text())["torch_dtype"] == dtype


def test_blocks_of_rows_give_the_bits_of_the_whole(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mistral_mlx.convert.sources.source.BLOCK_WEIGHTS", 3 * 128 + 1)  # three rows, and a ragged end
    convert(source, tmp_path / "target")
    weights = {name: mx.array(w) for name, w in random_weights(CONFIG).items()}
    assert_same_bits(arrays(tmp_path / "target"), expected_arrays(weights, 4, 64, mx.float32))


def test_shards_are_cut_at_the_limit_and_indexed(tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    convert(source, tmp_path / "one")
    monkeypatch.setattr("mistral_mlx.convert.write.target.SHARD_NBYTES", 50_000)
    report = convert(source, tmp_path / "many")
    assert_same_bits(arrays(tmp_path / "many"), arrays(tmp_path / "one"))
    index = json.loads((tmp_path / "many" / "model.safetensors.index.json").read_text())
    assert index["metadata"] == {"total_size": report.target_bytes, "total_parameters": report.parameters}
    count = len(set(index["weight_map"].values()))
    assert sorted(set(index["weight_map"].values())) == [
        f"model-{i + 1:05d}-of-{count:05d}.safetensors" for i in range(count)
    ]
    assert count == 5


def test_every_tensor_is_aligned_to_its_item(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", {**CONFIG, "vocab_size": 63})  # an odd number of scales
    convert(source, tmp_path / "target", dtype="float16", group_size=128)
    entries = read_header(tmp_path / "target" / "model.safetensors").values()
    assert [e.name for e in entries if e.start % (ITEM_BITS[e.dtype] // 8)] == []


def test_config_keeps_the_source_and_adds_the_quantization(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "target", bits=8, group_size=32)
    rule = {"group_size": 32, "bits": 8, "mode": "affine"}
    text = (tmp_path / "target" / "config.json").read_text()
    assert json.loads(text) == {**CONFIG, "quantization": rule, "quantization_config": rule}
    assert text == json.dumps(dict(sorted(json.loads(text).items())), indent=4)


def test_report_counts_bytes_weights_and_errors(tmp_path: Path, source: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = convert(source, tmp_path / "target", progress=lambda *args: seen.append(args))
    weights = random_weights(CONFIG)
    parameters = sum(w.size for w in weights.values())
    assert (report.parameters, report.source_bytes) == (parameters, 4 * parameters)
    assert report.target_bytes == sum(a.nbytes for a in arrays(tmp_path / "target").values())
    assert report.bits_per_weight == report.target_bytes * 8 / parameters
    assert report.kept == [] and not report.tokenizer and not report.dry_run
    assert report.notes == ["no tokenizer was found: the target works with token ids only"]
    expected = {}
    for name, weight in weights.items():
        if weight.ndim == 2:
            unpacked = np.array(mx.dequantize(*mx.quantize(mx.array(weight)))).astype(np.float64)
            expected[name] = np.linalg.norm(weight - unpacked) / np.linalg.norm(weight)
    assert dict(report.errors) == pytest.approx(expected, rel=1e-4)
    assert [e for _, e in report.errors] == sorted((e for _, e in report.errors), reverse=True)
    assert [name for name, _, _ in seen] == list(weights)
    assert seen[-1][1:] == (4 * parameters, 4 * parameters)
    assert json.loads(json.dumps(report.as_dict()))["bits_per_weight"] == report.bits_per_weight


def test_matrices_that_do_not_divide_are_named_and_kept(tmp_path: Path) -> None:
    config = {**CONFIG, "intermediate_size": 172, "tie_word_embeddings": True}
    source = write_folder(tmp_path / "source", config)
    report = convert(source, tmp_path / "target")
    reason = "its 172 columns are no multiple of the group size 64"
    assert report.kept == [(f"model.layers.{i}.mlp.down_proj.weight", reason) for i in range(2)]
    weights = {name: mx.array(w) for name, w in random_weights(config).items()}
    assert_same_bits(arrays(tmp_path / "target"), expected_arrays(weights, 4, 64, mx.float32))


def test_dry_run_plans_the_same_and_writes_nothing(tmp_path: Path, source: Path) -> None:
    planned = convert(source, tmp_path / "target", dry_run=True).as_dict()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source"]
    done = convert(source, tmp_path / "target").as_dict()
    differing = {key for key in done if planned[key] != done[key]} - {"seconds", "free_bytes"}
    assert (planned["dry_run"], planned["errors"], differing) == (True, [], {"dry_run", "errors", "choices"})
    on_disk = sum(p.stat().st_size for p in (tmp_path / "target").iterdir())
    assert done["target_bytes"] < on_disk <= done["needed_bytes"]


def test_only_known_files_travel_and_none_names_code(tmp_path: Path, source: Path) -> None:
    small = {"tokenizer.json": '{"model": {"vocab": {"a": 0}}}', "tokenizer_config.json": '{"auto_map": {}, "x": "é"}'}
    for name, text in {**small, "LICENSE.txt": "free", "modeling.py": "boom", "notes.md": "", "x.bin": ""}.items():
        (source / name).write_text(text, encoding="utf-8")
    report = convert(source, tmp_path / "target")
    assert sorted(p.name for p in (tmp_path / "target").iterdir()) == [
        "LICENSE.txt", "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    assert (tmp_path / "target" / "tokenizer.json").read_text() == small["tokenizer.json"]
    assert json.loads((tmp_path / "target" / "tokenizer_config.json").read_text(encoding="utf-8")) == {"x": "é"}
    assert report.tokenizer and report.notes == []


def test_code_named_by_the_config_is_left_out_and_said(tmp_path: Path) -> None:
    source = changed(tmp_path, {"auto_map": {"AutoModel": "evil.Model"}, "model_file": "evil.py"})
    report = convert(source, tmp_path / "target")
    assert set(json.loads((tmp_path / "target" / "config.json").read_text())) == set(CONFIG) | {
        "quantization", "quantization_config",
    }  # fmt: skip
    assert [note.split()[0] for note in report.notes[:2]] == ["auto_map", "model_file"]


@pytest.mark.parametrize(
    ("said", "has_head", "written"),
    [(True, True, False), (False, True, False), ("absent", True, False), (True, False, True), ("absent", False, True)],
)
def test_the_weights_decide_on_the_head(tmp_path: Path, said: object, has_head: bool, written: bool) -> None:
    source = changed(tmp_path, {"tie_word_embeddings": said}, **({} if has_head else {"lm_head__weight": None}))
    report = convert(source, tmp_path / "target")
    assert json.loads((tmp_path / "target" / "config.json").read_text())["tie_word_embeddings"] is written
    assert ("lm_head.scales" in arrays(tmp_path / "target")) is has_head
    assert any("lm_head" in note for note in report.notes) is (said is True and has_head)


def test_rotary_buffers_of_old_checkpoints_are_dropped(tmp_path: Path) -> None:
    source = changed(tmp_path, model__layers__0__self_attn__rotary_emb__inv_freq=np.ones(16, np.float32))
    report = convert(source, tmp_path / "target")
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    assert f"{name} is left out: it follows from the config" in report.notes
    assert name not in arrays(tmp_path / "target")


NORM = "model__norm__weight"
NAN = np.full(128, np.nan, np.float32)


@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        ({}, {"lm_head__weight": None}, "lm_head.weight is missing"),
        ({}, {NORM: None}, "tensor model.norm.weight is missing"),
        ({}, {"extra": np.ones(3, np.float32)}, "tensor extra is unknown"),
        ({}, {NORM: np.ones(129, np.float32)}, r"model.norm.weight has shape \[129\], config.json implies \[128\]"),
        ({}, {NORM: np.ones(128, np.int32)}, "model.norm.weight is stored as I32"),
        ({}, {NORM: NAN}, "model.norm.weight holds NaN or infinity.*--allow-nonfinite"),
        ({}, {NORM: np.full(128, -np.inf, np.float32)}, "model.norm.weight holds NaN"),
        ({"vocab_size": 65}, {}, r"embed_tokens.weight has shape \[64, 128\], config.json implies \[65, 128\]"),
        ({"torch_dtype": "float16"}, {NORM: np.full(128, -7e4, np.float32)}, "norm.weight holds 70000, more than F16"),
        ({"quantization": {"group_size": 64, "bits": 4}}, {}, "has a quantization, but no tensor has scales"),
        ({"quantization_config": {"quant_method": "hqq"}}, {}, "quantized by hqq"),
        ({}, {"lm_head__scales": np.ones(3, np.float32)}, "lm_head has scales, but config.json has no quantization"),
        ({"rope_scaling": {"type": "yarn"}}, {}, "rope_scaling"),
    ],
)  # fmt: skip
def test_a_source_that_cannot_be_used_is_refused_by_name(
    tmp_path: Path, config: dict[str, object], weights: dict[str, np.ndarray], message: str
) -> None:
    source = changed(tmp_path, config, **weights)
    with pytest.raises((ModelError, ConversionError), match=message):
        convert(source, tmp_path / "target")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["changed"]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nonfinite_weights_pass_when_allowed(tmp_path: Path, value: float) -> None:
    weight = random_weights(CONFIG)["lm_head.weight"]
    weight[0, 0] = value
    report = convert(changed(tmp_path, lm_head__weight=weight), tmp_path / "target", allow_nonfinite=True)
    assert "lm_head.weight" not in dict(report.errors)
    assert all(np.isfinite(error) for _, error in report.errors)


def test_a_tokenizer_larger_than_the_embedding_is_refused(tmp_path: Path, source: Path) -> None:
    (source / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 63}}, "added_tokens": [{"id": 64}]}))
    with pytest.raises(ConversionError, match="tokenizer has 65 tokens and the embedding only 64 rows"):
        convert(source, tmp_path / "target")


def with_rows(folder: Path, vocab_size: int) -> Path:
    """A model whose embedding has `vocab_size` rows."""
    return write_folder(folder, CONFIG | {"vocab_size": vocab_size})


def test_a_pad_behind_the_last_row_is_no_obstacle_to_conversion_nor_to_loading(tmp_path: Path) -> None:
    document = json.loads(byte_level_json())
    last = max(document["model"]["vocab"].values())
    document["added_tokens"].append(document["added_tokens"][0] | {"id": last + 1, "content": "[PAD]"})
    source = write_json(with_rows(tmp_path / "source", last + 1), "tokenizer.json", document)
    convert(source, tmp_path / "target")
    assert load(tmp_path / "target")[1].control["[PAD]"] == last + 1
    document["added_tokens"][-1]["special"] = False
    write_json(source, "tokenizer.json", document)
    with pytest.raises(ConversionError, match=f"tokenizer has {last + 2} tokens and the embedding only {last + 1}"):
        convert(source, tmp_path / "second")


def test_a_folder_with_tekken_alone_works_after_conversion(tmp_path: Path) -> None:
    source = tekken_folder(with_rows(tmp_path / "source", 1300), 300, "v13")
    assert convert(source, tmp_path / "target").tokenizer
    tokenizer = load(tmp_path / "target")[1]
    assert (tokenizer.version, tokenizer.vocab_size) == ("v13", 1300)
    tekken_folder(source, 301)
    with pytest.raises(ConversionError, match="tokenizer has 1,301 tokens and the embedding only 1,300 rows"):
        convert(source, tmp_path / "second")
    write_json(source, "tekken.json", tekken_document(300, "v13") | {"special_tokens": None})
    with pytest.raises(TokenizerError, match=r"tekken\.json has None as special_tokens"):
        convert(source, tmp_path / "second")


def test_both_layouts_present_takes_the_hugging_face_one_and_says_so(tmp_path: Path, source: Path) -> None:
    (source / "consolidated.safetensors").write_bytes(b"not even a header")
    (source / "model-extra.safetensors").write_bytes(b"a stray file")
    report = convert(source, tmp_path / "target")
    assert "both layouts are present" in report.notes[0] and "consolidated.safetensors" in report.notes[0]
    weights = {name: mx.array(w) for name, w in random_weights(CONFIG).items()}
    assert_same_bits(arrays(tmp_path / "target"), expected_arrays(weights, 4, 64, mx.float32))


@pytest.mark.parametrize(
    "option", [{"bits": 7}, {"group_size": 16}, {"dtype": "float64"}, {"mode": "fp4"}, {"bits": 8, "mode": "nvfp4"}]
)
def test_options_out_of_range_are_refused(tmp_path: Path, source: Path, option: dict[str, object]) -> None:
    with pytest.raises(OptionError, match=next(iter(option))):
        convert(source, tmp_path / "target", **option)

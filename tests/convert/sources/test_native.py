"""Folders in Mistral's own layout (params.json, consolidated*.safetensors), converted."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, PARAMS, native_weights, random_weights, write_folder, write_native

from mistral_mlx.convert import convert
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.errors import CheckpointError, ConfigError, MistralMLXError, ModelError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.loading import inspect_model, load_model

LISTED = {key: value for key, value in PARAMS.items() if key != "max_position_embeddings"}


def config_of(tmp_path: Path, **params: object) -> dict[str, object]:
    """The config.json that PARAMS with `params` (None removes one) become; nothing is converted."""
    given = {key: value for key, value in {**PARAMS, **params}.items() if value != "absent"}
    return dict(open_source(write_native(tmp_path / "native", given)).config)


@pytest.mark.parametrize("shards", [1, 3])
def test_the_target_is_that_of_the_same_weights_in_hugging_faces_layout(tmp_path: Path, shards: int) -> None:
    convert(write_folder(tmp_path / "hf"), tmp_path / "from-hf")
    report = convert(write_native(tmp_path / "native", shards=shards), tmp_path / "from-native")
    files = [(tmp_path / name / "model.safetensors").read_bytes() for name in ("from-hf", "from-native")]
    assert files[0] == files[1]
    assert report.notes == ["no tokenizer was found: the target works with token ids only"]


def test_pairs_of_rows_turn_together_as_mistral_inference_turns_them(tmp_path: Path) -> None:
    """Scores of query and key heads, rotated in pairs with the stored rows and in halves with the target's."""
    source = write_native(tmp_path / "native", {**PARAMS, "rope_theta": 500.0})
    stored = mx.load(str(source / "consolidated.safetensors"))
    read = open_source(source).tensors
    x = mx.random.normal((1, 1, 7, 128), key=mx.random.key(0))

    def scores(wq: mx.array, wk: mx.array, *, in_pairs: bool) -> np.ndarray:
        heads = [(x @ w.T).reshape(1, 7, -1, 32).swapaxes(1, 2) for w in (wq, wk)]
        q, k = (mx.fast.rope(h, 32, traditional=in_pairs, base=500.0, scale=1.0, offset=0) for h in heads)
        return np.array(q[:, :2] @ k.swapaxes(-1, -2))

    expected = scores(*(stored[f"layers.1.attention.{w}.weight"] for w in ("wq", "wk")), in_pairs=True)
    tensors = [read[f"model.layers.1.self_attn.{w}_proj.weight"] for w in ("q", "k")]
    rows = [np.concatenate([block.weights().floats() for block in t.blocks()]) for t in tensors]
    np.testing.assert_allclose(scores(*map(mx.array, rows), in_pairs=False), expected, atol=1e-5)
    assert np.abs(scores(*map(mx.array, rows), in_pairs=True) - expected).max() > 0.1


def test_the_config_says_what_params_say(tmp_path: Path) -> None:
    assert config_of(tmp_path) == {**CONFIG, "hidden_act": "silu", "bos_token_id": 1, "eos_token_id": 2}


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"rope_theta": "absent"}, {"rope_theta": 1e6, "sliding_window": None}),
        ({"rope_theta": None}, {"rope_theta": 1e6}),
        ({"rope_theta": "absent", "sliding_window": 16}, {"rope_theta": 1e4, "sliding_window": 16}),
        ({"_sliding_window": 16}, {"sliding_window": 16}),
        ({"sliding_window": "16"}, {"sliding_window": 16}),
        ({"sliding_window": None, "_sliding_window": 16}, {"sliding_window": 16}),
        ({"sliding_window": None}, {"sliding_window": None}),
        ({"sliding_window": [16]}, {"sliding_window": 16}),
        ({"sliding_window": [None]}, {"sliding_window": None}),
        (
            {"_sliding_window": [None, 16]},
            {"sliding_window": 16, "layer_types": ["full_attention", "sliding_attention"]},
        ),
        ({"sliding_window": [8, 16]}, {"sliding_window": [8, 16]}),
        ({"max_position_embeddings": "absent", "max_seq_len": 77}, {"max_position_embeddings": 77}),
        ({"max_position_embeddings": "absent"}, {"max_position_embeddings": 32768}),
        ({"max_position_embeddings": "absent", "model_max_length": 77}, {"max_position_embeddings": 77}),
        ({"causal": True, "use_biases": False, "model_parallel": 1}, {}),
        ({"n_kv_heads": "absent"}, {"num_key_value_heads": 4}),
        ({"head_dim": "absent"}, {"head_dim": 32}),
        ({"tied_embeddings": True}, {"tie_word_embeddings": True}),
        ({"tie_word_embeddings": False, "model_type": "transformer"}, {"tie_word_embeddings": False}),
        ({"moe": None, "lora": {}, "yarn": None, "vocab_parallel": False, "max_batch_size": 3}, {}),
    ],
)
def test_each_key_is_honoured(tmp_path: Path, params: dict[str, object], expected: dict[str, object]) -> None:
    config = config_of(tmp_path, **params)
    assert {key: config[key] for key in expected} == expected
    assert ("layer_types" in config) is ("layer_types" in expected)


def test_windows_reach_the_engine(tmp_path: Path) -> None:
    convert(write_native(tmp_path / "native", {**PARAMS, "_sliding_window": [None, 16]}), tmp_path / "target")
    assert load_model(tmp_path / "target").args.sliding_window == (None, 16)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("moe", {"num_experts": 8}), ("lora", {"rank": 4}), ("yarn", {"factor": 4}), ("llama_4_scaling", {"beta": 0.1}),
        ("quantization", "fp8"), ("vocab_parallel", True), ("multimodal", 7), ("causal", False),
        ("qk_nope_head_dim", 64), ("model_type", "mamba"), ("activation", "gelu"), ("something_new", 3),
        ("dim", 0), ("dim", -128), ("dim", "128"), ("n_layers", True), ("n_heads", None), ("hidden_dim", 2.5),
        ("norm_eps", 0), ("norm_eps", "absent"), ("vocab_size", "absent"), ("rope_theta", -1.0), ("head_dim", 0),
        ("sliding_window", 0), ("sliding_window", "16k"), ("sliding_window", []), ("sliding_window", [1, 2, 3]),
        ("max_seq_len", 0), ("tied_embeddings", "yes"),
        ("n_layers", 10**9), ("rope_theta", 0),
    ],
)  # fmt: skip
def test_a_key_that_cannot_be_honoured_is_refused_by_its_name(tmp_path: Path, key: str, value: object) -> None:
    drop = {"max_position_embeddings": "absent"} if key == "max_seq_len" else {}
    with pytest.raises(ConfigError, match=rf"^params\.json: {key}[ .]") as caught:
        config_of(tmp_path, **{key: value}, **drop)
    assert "\n" not in str(caught.value)


def test_two_names_of_a_key_must_agree(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="sliding_window 8 and _sliding_window 16 disagree"):
        config_of(tmp_path, sliding_window=8, _sliding_window=16)


def test_what_is_assumed_is_said(tmp_path: Path) -> None:
    report = convert(write_native(tmp_path / "native", LISTED), tmp_path / "target")
    assert "32768 are assumed, as max_position_embeddings" in report.notes[0]


def changed(tmp_path: Path, **weights: np.ndarray | None) -> Path:
    """A native folder whose weights (names with __ for dots) are other than usual; None removes one."""
    tensors = native_weights(random_weights(CONFIG)) | {name.replace("__", "."): w for name, w in weights.items()}
    return write_native(
        tmp_path / "native", weights={name: mx.array(w) for name, w in tensors.items() if w is not None}
    )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"output__weight": None, "norm__weight": None}, "tensor model.norm.weight is missing"),
        ({"tok_embeddings__weight": None}, "tok_embeddings.weight is missing"),
        ({"layers__0__attention__wq__weight": np.ones((127, 128), np.float32)}, r"\[127, 128\] does not divide"),
        ({"layers__0__attention__wq__weight": np.ones(128, np.float32)}, r"\[128\] does not divide into heads of 32"),
        ({"layers__0__attention__wv__weight": np.ones((32, 128), np.float32)}, r"shape \[32, 128\], .* \[64, 128\]"),
        ({"layers__0__attention__wv__weight": np.ones((0, 128), np.float32)}, r"wv.weight has the impossible shape"),
        ({"norm__weight": np.float32(1)}, r"norm.weight has the impossible shape \[\]"),
        ({"norm__weight": np.ones(128, np.int32)}, "norm.weight is stored as I32"),
        ({"layers__00__attention__wv__weight": np.ones((64, 128), np.float32)}, "layers.00.attention.wv.weight has no"),
        ({"layers__0__attention__wq__lora_A": np.ones((4, 128), np.float32)}, "q_proj.lora_A is unknown"),
        ({"model__norm__weight": np.ones(128, np.float32)}, "model.norm.weight has no place"),
        ({"vision_encoder__ln_pre__weight": np.ones(8, np.float32)}, "has no vision_encoder"),
    ],
)  # fmt: skip
def test_damage_is_named_in_one_line(tmp_path: Path, weights: dict[str, np.ndarray], message: str) -> None:
    source = changed(tmp_path, **weights)
    with pytest.raises(MistralMLXError, match=message) as caught:
        convert(source, tmp_path / "target")
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["native"]


def test_an_absent_output_ties_the_head(tmp_path: Path) -> None:
    convert(changed(tmp_path, output__weight=None), tmp_path / "target")
    assert json.loads((tmp_path / "target" / "config.json").read_text())["tie_word_embeddings"] is True


def test_the_text_model_of_a_vision_model_is_converted_alone_and_that_is_said(tmp_path: Path) -> None:
    source = changed(tmp_path, vision_encoder__ln_pre__weight=np.ones(8, np.float32))
    (source / "params.json").write_text(json.dumps({**PARAMS, "vision_encoder": {"hidden_size": 8}}))
    report = convert(source, tmp_path / "target")
    assert report.notes[0] == "vision_encoder is left out: the text model is converted alone"
    assert load_model(tmp_path / "target").args.dim == 128


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["params.json"], "no weights in .*neither consolidated.safetensors nor consolidated.safetensors.index.json"),
        (["consolidated.safetensors"], "params.json is missing from"),
        (["consolidated-00001-of-00002.safetensors"], "neither consolidated.safetensors nor"),
        (["consolidated.00.pth"], r"as a pickle \(consolidated.00.pth\), which can run code and is never opened"),
        (["consolidated.00.pth", "params.json"], r"as a pickle \(consolidated.00.pth\)"),
    ],
)
def test_half_a_folder_is_refused_with_what_is_missing(tmp_path: Path, files: list[str], message: str) -> None:
    whole = write_native(tmp_path / "whole")
    (tmp_path / "source").mkdir()
    for name in files:
        kept = whole / ("params.json" if name == "params.json" else "consolidated.safetensors")
        (tmp_path / "source" / name).write_bytes(kept.read_bytes())
    with pytest.raises(ModelError, match=message):
        convert(tmp_path / "source", tmp_path / "target")


def test_the_index_decides_on_the_files(tmp_path: Path) -> None:
    source = write_native(tmp_path / "native", shards=2)
    (source / "consolidated-00002-of-00002.safetensors").unlink()
    with pytest.raises(
        CheckpointError, match=r"consolidated-00002-of-00002.safetensors is missing .* lists 2 files, 1"
    ):
        convert(source, tmp_path / "target")


def test_running_such_a_folder_says_to_convert_it(tmp_path: Path) -> None:
    source = write_native(tmp_path / "native")
    with pytest.raises(
        ModelError, match=rf"own layout \(params.json\); convert it first: mistral-mlx convert {source}$"
    ):
        inspect_model(ModelFolder(source))
    (source / "params.json").unlink()
    (source / "config.json").write_text(json.dumps(CONFIG))
    with pytest.raises(
        CheckpointError, match=rf"consolidated.safetensors\); convert it first: mistral-mlx convert {source}"
    ):
        load_model(source)

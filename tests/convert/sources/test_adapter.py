"""Adapters merged by `convert`, compared with their definition in float64; and refusals."""

import json
import re
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.adapters import PATHS, RANK, factors, magnitudes, merged, mlx_tensors, peft_tensors, write_mlx, write_peft
from helpers.convert_sources import CONFIG, add_weights, close, gguf_writer, random_weights, write_folder
from helpers.mixtures import LAYOUTS, MIXTRAL, weights_of

from mistral_mlx.convert import convert
from mistral_mlx.errors import ConversionError, ModelError
from mistral_mlx.model.loading import load_model

IDS = mx.array([[1, 5, 9, 33, 7]])
EMBED, HEAD, NORM = "model.embed_tokens", "lm_head", "model.norm"


def arrays(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(a) for name, a in mx.load(str(folder / "model.safetensors")).items()}


def assert_close(folder: Path, expected: dict[str, np.ndarray], rtol: float = 1e-6) -> None:
    found = arrays(folder)
    assert set(found) == set(expected)
    for name, weight in expected.items():
        assert np.abs(found[name] - weight).max() <= rtol * np.abs(weight).max(), name


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "source")


WEIGHTS = random_weights(CONFIG)


def test_every_form_gives_the_weights_of_the_definition(tmp_path: Path, source: Path) -> None:
    m = magnitudes()
    cases = {
        "peft": (write_peft(tmp_path / "a"), merged(WEIGHTS, 6 / RANK)),
        "rslora": (write_peft(tmp_path / "b", use_rslora=True), merged(WEIGHTS, 6 / RANK**0.5)),
        "peft-dora": (write_peft(tmp_path / "c", peft_tensors(m), use_dora=True), merged(WEIGHTS, 6 / RANK, m)),
        "mlx": (write_mlx(tmp_path / "d"), merged(WEIGHTS, 1.5)),
        "mlx-dora": (write_mlx(tmp_path / "e", mlx_tensors(m), fine_tune_type="dora"), merged(WEIGHTS, 1.5, m)),
    }
    for name, (adapter, expected) in cases.items():
        report = convert(source, tmp_path / name, dequantize=True, adapter=adapter)
        assert_close(tmp_path / name, expected)
        kind = "DoRA" if "dora" in name else "LoRA"
        assert report.notes[0] == (
            f"the adapter changes 3 by {kind} of rank 4; it says that it was trained on some/base"
        )


def test_blocks_of_rows_give_what_the_whole_gives(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_peft(tmp_path / "a", peft_tensors(magnitudes()), use_dora=True)
    monkeypatch.setattr("mistral_mlx.convert.sources.source.BLOCK_WEIGHTS", 3 * 128 + 1)
    convert(source, tmp_path / "target", dequantize=True, adapter=adapter)
    assert_close(tmp_path / "target", merged(WEIGHTS, 6 / RANK, magnitudes()))


def test_patterns_give_single_modules_their_own_rank_and_alpha(tmp_path: Path, source: Path) -> None:
    first, second, third = PATHS
    found = factors((first, second, third))
    config = {"alpha_pattern": {"k_proj": 12, "^model.layers.0.self_attn.q_proj": 2}, "rank_pattern": {"x.q_proj": 9}}
    convert(source, tmp_path / "target", dequantize=True, adapter=write_peft(tmp_path / "a", **config))
    expected = dict(WEIGHTS)
    for path, alpha in ((first, 2), (second, 12), (third, 6)):
        b, a = found[path]
        expected[f"{path}.weight"] = WEIGHTS[f"{path}.weight"] + alpha / RANK * b @ a
    assert_close(tmp_path / "target", expected)


def test_embeddings_and_whole_modules_are_changed_too(tmp_path: Path, source: Path) -> None:
    rng = np.random.default_rng(3)
    a, b = (rng.standard_normal(shape, dtype=np.float32) for shape in ((RANK, 64), (128, RANK)))
    head, prefix = rng.standard_normal((64, 128), dtype=np.float32), "base_model.model."
    tensors = {f"{prefix}{EMBED}.lora_embedding_A": a, f"{prefix}{EMBED}.lora_embedding_B": b}
    adapter = write_peft(
        tmp_path / "a", tensors | {f"{prefix}{HEAD}.weight": head}, lora_alpha=RANK, modules_to_save=["lm_head"]
    )
    convert(source, tmp_path / "peft", dequantize=True, adapter=adapter)
    embedding = {f"{EMBED}.weight": WEIGHTS[f"{EMBED}.weight"] + (b @ a).T}
    assert_close(tmp_path / "peft", WEIGHTS | embedding | {f"{HEAD}.weight": head})

    parameters = {"rank": RANK, "scale": 1.0, "keys": [EMBED]}
    adapter = write_mlx(tmp_path / "b", {f"{EMBED}.lora_a": a.T, f"{EMBED}.lora_b": b.T}, lora_parameters=parameters)
    convert(source, tmp_path / "mlx", dequantize=True, adapter=adapter)
    assert_close(tmp_path / "mlx", WEIGHTS | embedding)

    full = {f"{HEAD}.weight": head, f"{NORM}.weight": np.ones(128, np.float32)}
    adapter = write_mlx(tmp_path / "c", full, fine_tune_type="full")
    convert(source, tmp_path / "full", dequantize=True, adapter=adapter)
    assert_close(tmp_path / "full", WEIGHTS | full)


PREFIXES = {"transformers 5": "model.language_model.", "transformers 4": "language_model.model."}
TOWER = "vision_tower.transformer.layers.0.attention.q_proj"


def inside(tensors: dict[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return an adapter of a text model as one of the wrapper's, with something for the vision tower."""
    found = {re.sub(r"(^|model\.)model\.(?=layers)", rf"\1{prefix}", name): t for name, t in tensors.items()}
    beside = next(name for name in tensors if f"{PATHS[0]}." in name)
    return found | {beside.replace(PATHS[0], TOWER): tensors[beside]}


@pytest.mark.parametrize("prefix", PREFIXES.values(), ids=list(PREFIXES))
def test_an_adapter_trained_on_a_model_with_a_vision_tower_changes_its_text_model(
    tmp_path: Path, source: Path, prefix: str
) -> None:
    path = PATHS[1].replace("model.", prefix)
    patterns = {"alpha_pattern": {f"^{path}": 12}, "rank_pattern": {f"^{PATHS[1]}": 9}, "layers_to_transform": [0, 1]}
    peft = write_peft(tmp_path / "a", inside(peft_tensors(), prefix), **patterns)
    keys = {"keys": ["self_attn.q_proj", "mlp.down_proj", path]}
    mlx = write_mlx(tmp_path / "b", inside(mlx_tensors(), prefix), lora_parameters=LORA | {"dropout": 0.0} | keys)
    whole = {name.replace("model.", prefix, 1): w + 1 for name, w in WEIGHTS.items() if "q_proj" in name}
    full = write_mlx(tmp_path / "c", whole, fine_tune_type="full")
    note = "what the adapter changes in vision_tower is left out: the text model is converted alone"
    for adapter, expected in (
        (peft, merged(WEIGHTS, 6 / RANK) | {f"{PATHS[1]}.weight": merged(WEIGHTS, 12 / RANK)[f"{PATHS[1]}.weight"]}),
        (mlx, merged(WEIGHTS, 1.5)),
        (full, {name: w + 1 if "q_proj" in name else w for name, w in WEIGHTS.items()}),
    ):
        report = convert(source, tmp_path / f"target {adapter.name}", dequantize=True, adapter=adapter)
        assert_close(tmp_path / f"target {adapter.name}", expected)
        assert (note in report.notes) == (adapter is not full)


def test_an_adapter_that_changes_no_text_model_or_a_weight_twice_is_refused(tmp_path: Path, source: Path) -> None:
    tower = {name: t for name, t in inside(peft_tensors(), "model.language_model.").items() if TOWER in name}
    with pytest.raises(ModelError, match="changes only vision_tower, and the text model is converted alone"):
        convert(source, tmp_path / "target", adapter=write_peft(tmp_path / "a", tower))
    twice = peft_tensors() | inside(peft_tensors(), "language_model.model.")
    with pytest.raises(ModelError, match=r"the adapter has tensor model\.layers\.0\.self_attn\.q_proj twice"):
        convert(source, tmp_path / "target", adapter=write_peft(tmp_path / "b", twice))


@pytest.mark.parametrize("kind", ["F32", "Q8_0", "Q4_0"])
def test_a_gguf_has_its_touched_weights_merged_in_hugging_faces_order(tmp_path: Path, kind: str) -> None:
    writer = gguf_writer(tmp_path / "x.gguf")
    stored = add_weights(writer, WEIGHTS, kind)
    path, adapter = close(writer), write_peft(tmp_path / "a")
    report = convert(path, tmp_path / "target", dequantize=True, dtype="float32", adapter=adapter)
    assert_close(tmp_path / "target", merged(stored, 6 / RANK))
    if kind == "F32":
        return
    report = convert(path, tmp_path / "packed", adapter=adapter)
    convert(path, tmp_path / "carried")
    found, carried = arrays(tmp_path / "packed"), arrays(tmp_path / "carried")
    differing = {name.rpartition(".")[0] for name in carried if not np.array_equal(found[name], carried[name])}
    assert differing == set(PATHS)
    expected = merged(stored, 6 / RANK)[f"{PATHS[0]}.weight"]
    parts = (mx.array(found[f"{PATHS[0]}.{part}"]) for part in ("weight", "scales", "biases"))
    unpacked = np.array(mx.dequantize(*parts, group_size=32, bits=8 if kind == "Q8_0" else 4))
    assert np.linalg.norm(unpacked - expected) < (0.01 if kind == "Q8_0" else 0.1) * np.linalg.norm(expected)
    assert any(f"3 of the source's {kind} weights are unpacked, merged" in note for note in report.notes)
    assert set(dict(report.errors)) == {f"{path}.weight" for path in PATHS}


def test_a_packed_mlx_folder_keeps_what_the_adapter_does_not_touch(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "packed", bits=4, dtype="bfloat16")
    with pytest.raises(ConversionError, match="already quantized for MLX"):
        convert(tmp_path / "packed", tmp_path / "target")
    convert(tmp_path / "packed", tmp_path / "target", adapter=write_mlx(tmp_path / "a"))
    before, after = (mx.load(str(tmp_path / name / "model.safetensors")) for name in ("packed", "target"))
    assert {n: (a.dtype, a.shape) for n, a in before.items()} == {n: (a.dtype, a.shape) for n, a in after.items()}
    assert {n.rpartition(".")[0] for n in before if not mx.array_equal(before[n], after[n])} == set(PATHS)
    load_model(tmp_path / "target")


def test_a_quantized_target_computes_what_the_merged_model_does(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "target", bits=8, group_size=32, adapter=write_peft(tmp_path / "a"))
    plain = {name: mx.array(w.astype(np.float32)) for name, w in merged(WEIGHTS, 6 / RANK).items()}
    expected = np.array(load_model(write_folder(tmp_path / "plain", weights=plain))(IDS))
    base = np.array(load_model(source)(IDS))
    found = np.array(load_model(tmp_path / "target")(IDS))
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected) < np.linalg.norm(base - expected)


Q = "base_model.model.model.layers.0.self_attn.q_proj"
ONES = {"A": np.ones((RANK, 128), np.float32), "B": np.ones((128, RANK), np.float32)}


def with_tensor(**changed: np.ndarray) -> dict[str, np.ndarray]:
    return peft_tensors() | {f"{Q}.lora_{name}.weight": tensor for name, tensor in changed.items()}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (None, {"peft_type": "LOHA"}, "peft_type is 'LOHA'"),
        (None, {"bias": "all"}, "bias is 'all'"),
        (None, {"fan_in_fan_out": True}, "fan_in_fan_out is True"),
        (None, {"layer_replication": [[0, 2]]}, "layer_replication is"),
        (None, {"lora_bias": True}, "lora_bias is True"),
        (None, {"something_new": 1}, "something_new is 1"),
        (None, {"init_lora_weights": "pissa"}, "init_lora_weights is 'pissa'"),
        (None, {"trainable_token_indices": [1]}, "trainable_token_indices"),
        (None, {"r": 8}, "rank 8"),
        (None, {"r": 0}, "r is 0"),
        (None, {"lora_alpha": "6"}, "lora_alpha is '6'"),
        (None, {"rank_pattern": {"q_proj": 2}}, "rank 2"),
        (None, {"alpha_pattern": {"(a+)+$": 2}}, "only names of modules"),
        (None, {"layers_to_transform": [1]}, "layers.0.self_attn.q_proj, which layers_to_transform leaves out"),
        (None, {"use_dora": True}, "lora_magnitude_vector is missing"),
        (peft_tensors(magnitudes()), {}, "lora_magnitude_vector is not expected"),
        ({}, {}, "holds no tensor"),
        ({f"{Q}.lora_A.weight": ONES["A"]}, {}, "lora_B is missing"),
        (with_tensor(A=np.ones((RANK, 96), np.float32)), {}, "q_proj.weight .128, 128.: it is another model's"),
        (with_tensor(B=ONES["B"] * np.nan), {}, "q_proj.lora_B.weight holds NaN or infinity"),
        (with_tensor(A=np.ones((RANK, 128), np.int32)), {}, "stored as I32"),
        ({f"base_model.model.model.layers.9.{n}": t for n, t in (("x.lora_A", ONES["A"]), ("x.lora_B", ONES["B"]))},
         {}, "model.layers.9.x.weight, which the source does not have"),
        ({"q.lora_A.weight": ONES["A"]}, {}, "does not begin with base_model.model."),
        ({f"{Q}.bias": np.ones(128, np.float32)}, {}, "neither LoRA's nor one of modules_to_save"),
        ({f"base_model.model.{HEAD}.weight": np.ones((66, 128), np.float32)}, {"modules_to_save": ["lm_head"]},
         r"shape \[66, 128\], the source's \[64, 128\]; new tokens"),
    ],
)  # fmt: skip
def test_what_cannot_be_merged_is_refused_by_its_name(
    tmp_path: Path, source: Path, tensors: dict[str, np.ndarray] | None, config: dict[str, object], message: str
) -> None:
    adapter = write_peft(tmp_path / "a", tensors, **config)
    with pytest.raises((ModelError, ConversionError), match=message) as caught:
        convert(source, tmp_path / "target", adapter=adapter)
    assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "source"]


LORA = {"rank": RANK, "scale": 1.5}


@pytest.mark.parametrize(
    ("tensors", "config", "message"),
    [
        (None, {"fine_tune_type": "prefix"}, "fine_tune_type is 'prefix'"),
        (None, {"lora_parameters": LORA | {"alpha": 3}}, "lora_parameters.alpha"),
        (None, {"lora_parameters": {"rank": RANK}}, "scale is missing"),
        (None, {"lora_parameters": LORA | {"rank": 5}}, "rank 5"),
        (None, {"lora_parameters": LORA | {"keys": ["self_attn.q_proj"]}}, "num_layers and keys leave out"),
        (None, {"num_layers": 1}, "layers.0.self_attn.q_proj, which num_layers"),
        (None, {"fine_tune_type": "full"}, "for .model.layers.0.self_attn.q_proj.lora_a.|q_proj.lora_a, which"),
        (None, {"fine_tune_type": "dora"}, "q_proj.m is missing"),
        ({"model.x": np.ones(3, np.float32)}, {}, "none of lora_a, lora_b and m"),
    ],
)
def test_an_mlx_adapter_that_cannot_be_merged_is_refused_by_its_name(
    tmp_path: Path, source: Path, tensors: dict[str, np.ndarray] | None, config: dict[str, object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        convert(source, tmp_path / "target", adapter=write_mlx(tmp_path / "a", tensors, **config))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "source"]


def test_a_tied_head_is_never_changed_by_peft_through_the_embedding(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", {**CONFIG, "tie_word_embeddings": True})
    tensors = {f"base_model.model.{EMBED}.weight": WEIGHTS[f"{EMBED}.weight"]}
    with pytest.raises(ConversionError, match="head of the source is tied"):
        convert(source, tmp_path / "t", adapter=write_peft(tmp_path / "a", tensors, modules_to_save=["embed_tokens"]))


def test_pickles_links_out_and_new_tokens_are_refused(tmp_path: Path, source: Path) -> None:
    adapter = write_peft(tmp_path / "a")
    (source / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 59}}}))
    (adapter / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 59}}}))
    report = convert(source, tmp_path / "t", dry_run=True, adapter=adapter)
    assert any("own tokenizer and chat template are left out" in note for note in report.notes)
    (adapter / "tokenizer.json").write_text(json.dumps({"model": {"vocab": {"a": 60}}}))
    with pytest.raises(ConversionError, match="tokenizer of 61 tokens, the source has 60; new tokens"):
        convert(source, tmp_path / "t", adapter=adapter)
    (adapter / "adapter_model.safetensors").rename(tmp_path / "outside")
    (adapter / "adapter_model.bin").write_bytes(b"boom")
    with pytest.raises(ModelError, match=r"adapter_model\.bin, which can run code and is never opened"):
        convert(source, tmp_path / "t", adapter=adapter)
    (adapter / "adapter_model.safetensors").symlink_to(tmp_path / "outside")
    with pytest.raises(ModelError, match="is a link out of"):
        convert(source, tmp_path / "t", adapter=adapter)
    with pytest.raises(ModelError, match="does not exist"):
        convert(source, tmp_path / "t", adapter=tmp_path / "nowhere")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention_of_a_mixture_is_merged(tmp_path: Path, layout: str) -> None:
    """Both modules that change lie in attention, whose rows have another order in some layouts."""
    weights, found = weights_of(), factors(PATHS[:2])
    source = LAYOUTS[layout](tmp_path / "source", MIXTRAL, weights)
    mlx = {f"{path}.{part}": f.T for path, (b, a) in found.items() for part, f in (("lora_a", a), ("lora_b", b))}
    convert(source, tmp_path / "target", dequantize=True, adapter=write_mlx(tmp_path / "a", mlx))
    changed = {f"{path}.weight": weights[f"{path}.weight"] + 1.5 * b @ a for path, (b, a) in found.items()}
    assert_close(tmp_path / "target", weights | changed)


def test_dora_of_a_mixture_is_merged_before_it_is_packed(tmp_path: Path) -> None:
    weights, found, m = weights_of(), factors(PATHS[:2]), magnitudes()
    peft = {
        f"base_model.model.{path}.{part}": array
        for path, (b, a) in found.items()
        for part, array in (("lora_A.weight", a), ("lora_B.weight", b), ("lora_magnitude_vector", m[path]))
    }
    source = LAYOUTS["hugging face"](tmp_path / "source", MIXTRAL, weights)
    adapter = write_peft(tmp_path / "a", peft, use_dora=True)
    convert(source, tmp_path / "plain", dequantize=True, adapter=adapter)
    for path, (b, a) in found.items():
        weight = weights[f"{path}.weight"] + 6 / RANK * b @ a
        weight *= (m[path] / np.linalg.norm(weight, axis=1))[:, None]
        np.testing.assert_allclose(arrays(tmp_path / "plain")[f"{path}.weight"], weight, rtol=1e-4, atol=1e-5)
    convert(source, tmp_path / "packed", bits=8, adapter=adapter)
    load_model(tmp_path / "packed")


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.block_sparse_moe.experts.0.w1",
        "model.layers.0.block_sparse_moe.switch_mlp.up_proj",
        "model.layers.0.mlp.experts.base_layer",
    ],
)
@pytest.mark.parametrize("write", [write_peft, write_mlx])
def test_experts_cannot_be_merged(tmp_path: Path, name: str, write) -> None:
    source = LAYOUTS["mlx"](tmp_path / "source", MIXTRAL, weights_of())
    parts = ("lora_a", "lora_b") if write is write_mlx else ("lora_A.weight", "lora_B.weight")
    prefix = "" if write is write_mlx else "base_model.model."
    tensors = {f"{prefix}{name}.{part}": np.ones((RANK, RANK), np.float32) for part in parts}
    with pytest.raises(ConversionError, match=rf"changes experts \({prefix}{name}"):
        convert(source, tmp_path / "target", adapter=write(tmp_path / "a", tensors))

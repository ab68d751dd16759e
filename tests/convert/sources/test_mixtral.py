"""Mixtral in every layout: the experts become one tensor for each module, with the same weights."""

import json
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
import reference
from helpers.convert_sources import write_folder, write_native, write_safetensors
from helpers.fp8_folders import PER_TENSOR, encoded, scales_of
from helpers.gguf_files import random_blocks
from helpers.grouped_folders import AWQ, GPTQ, packed_tensor
from helpers.mixtures import (
    EXPERTS,
    LAYOUTS,
    MIXTRAL,
    ROUTER,
    Weights,
    fused,
    native,
    params,
    per_expert,
    weights_of,
    write_gguf,
)

from mistral_mlx.convert import convert
from mistral_mlx.convert.sources import experts
from mistral_mlx.convert.storage.gguf import NEAREST, PACKINGS
from mistral_mlx.convert.storage.joined import Joined
from mistral_mlx.convert.storage.plain import Plain
from mistral_mlx.convert.storage.rows import Stored
from mistral_mlx.errors import CheckpointError, ConfigError, MistralMLXError
from mistral_mlx.model.loading import load_model

IDS = [1, 5, 9, 33, 7, 2, 60, 11, 40]
CHANGES = {
    "k of E": {},
    "all experts": {"num_experts_per_tok": 4},
    "one of three, tied": {"num_local_experts": 3, "num_experts_per_tok": 1, "tie_word_embeddings": True},
}


def tensors(folder: Path) -> dict[str, np.ndarray]:
    return {name: np.array(array) for name, array in mx.load(str(folder / "model.safetensors")).items()}


def dense_config() -> dict[str, object]:
    """Of a model without experts."""
    return {key: value for key, value in MIXTRAL.items() if "expert" not in key} | {"model_type": "mistral"}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("change", CHANGES)
def test_every_layout_has_the_same_weights_and_logits(tmp_path: Path, layout: str, change: str) -> None:
    config = MIXTRAL | CHANGES[change]
    weights = weights_of(config)
    source = LAYOUTS[layout](tmp_path / "source", config, weights)
    convert(source, tmp_path / "target", dequantize=True)
    found = tensors(tmp_path / "target")
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        np.testing.assert_array_equal(found[name], weight, err_msg=name)
    model = load_model(tmp_path / "target")
    expected = reference.forward(model.args, weights, IDS)
    np.testing.assert_allclose(np.array(model(mx.array([IDS])))[0], expected, atol=1e-3 * np.abs(expected).max())


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_config_says_how_many_experts_there_are(tmp_path: Path, layout: str) -> None:
    convert(LAYOUTS[layout](tmp_path / "source", MIXTRAL, weights_of()), tmp_path / "target")
    config = json.loads((tmp_path / "target" / "config.json").read_text())
    for key in ("model_type", "architectures", "num_local_experts", "num_experts_per_tok", "sliding_window"):
        assert config[key] == MIXTRAL[key], key


@pytest.mark.parametrize("layout", LAYOUTS)
def test_experts_are_packed_and_the_router_is_not(tmp_path: Path, layout: str) -> None:
    weights = weights_of()
    report = convert(LAYOUTS[layout](tmp_path / "source", MIXTRAL, weights), tmp_path / "target", bits=4)
    found = mx.load(str(tmp_path / "target" / "model.safetensors"))
    router = f"model.layers.1{ROUTER}weight"
    np.testing.assert_array_equal(np.array(found[router]), weights[router])
    path = f"model.layers.1{EXPERTS}down_proj"
    expected = mx.quantize(mx.array(weights[f"{path}.weight"]), group_size=64, bits=4)
    for part, array in zip(("weight", "scales", "biases"), expected, strict=True):
        assert mx.array_equal(found[f"{path}.{part}"], array)
    assert report.kept == [] and report.parameters == sum(w.size for w in weights.values())


def test_a_rule_packs_the_router_too(tmp_path: Path) -> None:
    source = LAYOUTS["mlx"](tmp_path / "source", MIXTRAL, weights_of())
    convert(source, tmp_path / "target", rules=["block_sparse_moe.gate$=8"])
    assert f"model.layers.0{ROUTER}scales" in tensors(tmp_path / "target")


def test_recipes_give_more_bits_to_the_experts_that_count(tmp_path: Path) -> None:
    source = LAYOUTS["hugging face"](tmp_path / "source", MIXTRAL, weights_of())
    convert(source, tmp_path / "target", recipe="mixed_3_6")
    config = json.loads((tmp_path / "target" / "config.json").read_text())["quantization"]
    assert config[f"model.layers.1{EXPERTS}down_proj"]["bits"] == 6 and config["bits"] == 3


@pytest.mark.usefixtures("exact_products")
def test_a_packed_mlx_folder_with_a_packed_router_is_read(tmp_path: Path) -> None:
    """As mlx-lm writes it, the router with bits of its own."""
    source = LAYOUTS["mlx"](tmp_path / "source", MIXTRAL, weights_of())
    convert(source, tmp_path / "packed", bits=4, rules=[r"block_sparse_moe\.gate$=8"])
    convert(tmp_path / "packed", tmp_path / "plain", dequantize=True)
    plain, packed = tensors(tmp_path / "plain"), mx.load(str(tmp_path / "packed" / "model.safetensors"))
    for path, bits in ((f"model.layers.0{ROUTER[:-1]}", 8), (f"model.layers.1{EXPERTS}up_proj", 4)):
        expected = mx.dequantize(*(packed[f"{path}.{part}"] for part in ("weight", "scales", "biases")), 64, bits)
        np.testing.assert_array_equal(plain[f"{path}.weight"], np.array(expected))
    ids = mx.array([IDS])
    logits = [np.array(load_model(tmp_path / name)(ids)) for name in ("packed", "plain")]
    np.testing.assert_allclose(*logits, atol=5e-3 * np.abs(logits[0]).max())


@pytest.mark.parametrize("stacked", [True, False])
@pytest.mark.parametrize("kind", ["Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_exact_gguf_kinds_are_carried_over(tmp_path: Path, kind: str, stacked: bool) -> None:
    stored = write_gguf(tmp_path / "model.gguf", weights_of(), kind, stacked=stacked)
    report = convert(tmp_path / "model.gguf", tmp_path / "packed")
    convert(tmp_path / "packed", tmp_path / "plain", dequantize=True, dtype="float32")
    assert f"{kind} weights are carried over without loss" in report.notes[0]
    for name, weight in tensors(tmp_path / "plain").items():
        np.testing.assert_array_equal(weight, stored[name], err_msg=name)


@pytest.mark.parametrize("kind", [*PACKINGS, *NEAREST])
def test_every_gguf_kind_is_unpacked_as_gguf_does(tmp_path: Path, kind: str) -> None:
    config = MIXTRAL | {"hidden_size": 256, "num_hidden_layers": 1, "head_dim": 64}
    weights, name = weights_of(config), f"model.layers.0{EXPERTS}up_proj.weight"
    del weights[name]
    blocks = random_blocks(kind, (4 * 256, 256)).reshape(4, 256, -1)
    write_gguf(tmp_path / "model.gguf", weights, config=config, blocks={name: (kind, blocks)})
    convert(tmp_path / "model.gguf", tmp_path / "plain", dequantize=True, dtype="float32")
    expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])
    np.testing.assert_array_equal(tensors(tmp_path / "plain")[name], expected)


def test_experts_of_different_gguf_kinds_are_packed_by_the_finest(tmp_path: Path) -> None:
    """The files of old may have them; all of a stacked tensor has the same bits."""
    stored = write_gguf(tmp_path / "model.gguf", weights_of(), "Q4_0", "Q8_0", stacked=False)
    convert(tmp_path / "model.gguf", tmp_path / "packed")
    rules = json.loads((tmp_path / "packed" / "config.json").read_text())["quantization"]
    name = f"model.layers.0{EXPERTS}up_proj"
    assert rules["bits"] == 4 and rules[name]["bits"] == 8
    convert(tmp_path / "model.gguf", tmp_path / "plain", dequantize=True, dtype="float32")
    np.testing.assert_array_equal(tensors(tmp_path / "plain")[f"{name}.weight"], stored[f"{name}.weight"])


def test_equal_experts_are_one_feed_forward(tmp_path: Path) -> None:
    """Whichever are chosen: their shares add up to 1."""
    config = MIXTRAL | {"num_experts_per_tok": 3}
    weights = {name: np.stack([w[0]] * 4) if EXPERTS in name else w for name, w in weights_of(config).items()}
    dense = {name.replace(EXPERTS, ".mlp."): w[0] if EXPERTS in name else w for name, w in weights.items()}
    dense = {name: mx.array(w) for name, w in dense.items() if ROUTER not in name}
    write_folder(tmp_path / "dense", dense_config(), weights=dense)
    convert(LAYOUTS["hugging face"](tmp_path / "source", config, weights), tmp_path / "mixture", dequantize=True)
    logits = [np.array(load_model(tmp_path / name)(mx.array([IDS]))) for name in ("mixture", "dense")]
    np.testing.assert_allclose(*logits, atol=1e-4 * np.abs(logits[1]).max())


@pytest.mark.parametrize("layout", ["hugging face", "mlx"])
def test_permuting_experts_with_the_rows_of_the_router_changes_nothing(tmp_path: Path, layout: str) -> None:
    weights, order = weights_of(), [2, 0, 3, 1]
    permuted = {name: w[order] if EXPERTS in name or ROUTER in name else w for name, w in weights.items()}
    logits = []
    for i, these in enumerate((weights, permuted)):
        convert(LAYOUTS[layout](tmp_path / f"source{i}", MIXTRAL, these), tmp_path / f"target{i}", bits=8)
        logits.append(np.array(load_model(tmp_path / f"target{i}")(mx.array([IDS]))))
    np.testing.assert_allclose(*logits, atol=1e-4 * np.abs(logits[0]).max())


def _without(name: str):
    return lambda own: {key: w for key, w in own.items() if not key.endswith(name)}


def _with(name: str, shape: tuple[int, ...]):
    return lambda own: own | {name: np.ones(shape, np.float32)}


ONE = "model.layers.0.block_sparse_moe.experts"
FUSED = "model.layers.0.mlp.experts"


@pytest.mark.parametrize(
    ("layout", "change", "said"),
    [
        (
            per_expert,
            _without("0.block_sparse_moe.experts.1.w1.weight"),
            "expert 1 in model.layers.0 is missing; there should be 4",
        ),
        (per_expert, _without("experts.3.w2.weight"), r"w2 \(down_proj\) of expert 3 in model\.layers\.0 is missing"),
        (
            per_expert,
            _with(f"{ONE}.4.w1.weight", (256, 128)),
            "expert 4 in model.layers.0 is one too many",
        ),
        (per_expert, _with(f"{ONE}.04.w1.weight", (256, 128)), "experts.04.w1.weight is unknown"),
        (per_expert, _with(f"{ONE}.1.w1.weight", (128, 256)), r"has shape \[128, 256\], and that of expert 0 has"),
        (per_expert, _with(f"{ONE}.1.w1.weight", (4, 256, 128)), "which is no matrix"),
        (per_expert, _with("model.layers.0.block_sparse_moe.switch_mlp.up_proj.weight", (4, 256, 128)), "the same"),
        (per_expert, _without("0.block_sparse_moe.gate.weight"), "gate.weight is missing"),
        (per_expert, _with("model.layers.0.block_sparse_moe.gate.weight", (3, 128)), "has shape"),
        (fused, _with(f"{FUSED}.gate_up_proj", (4, 511, 128)), "2 matrices for each of 4 experts"),
        (fused, _with(f"{FUSED}.gate_up_proj", (4, 510, 128)), "has shape"),
        (fused, _with(f"{FUSED}.gate_up_proj", (3, 512, 128)), "2 matrices for each of 4 experts"),
        (fused, _with(f"{FUSED}.down_proj", (1024, 128)), "a matrix for each of 4 experts"),
        (fused, _with(f"{FUSED}.down_proj", (0, 0, 0)), "a matrix for each of 4 experts"),
        (dict, _with("model.layers.0.block_sparse_moe.switch_mlp.up_proj.weight", (5, 256, 128)), "a matrix for each"),
    ],
)
def test_experts_that_do_not_fit_are_refused(tmp_path: Path, layout, change, said: str) -> None:
    own = {name: mx.array(w) for name, w in change(layout(weights_of())).items()}
    write_folder(tmp_path / "source", MIXTRAL, weights=own)
    with pytest.raises(CheckpointError, match=said) as error:
        convert(tmp_path / "source", tmp_path / "target")
    assert "\n" not in str(error.value) and not (tmp_path / "target").exists()


@pytest.mark.parametrize("name", ["model.layers.2.mlp.experts.down_proj", "model.layers.0.mlp.experts.other"])
def test_only_tensors_of_the_model_are_divided(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """A file may name thousands of layers, and each tensor would become hundreds."""
    divided, divide = list[str](), experts._divided
    monkeypatch.setattr(experts, "_divided", lambda entry, *n: divided.append(entry.name) or divide(entry, *n))
    own = {key: mx.array(w) for key, w in (fused(weights_of()) | {name: np.ones((4, 8, 8), np.float32)}).items()}
    with pytest.raises(CheckpointError, match="is unknown to a mixtral model"):
        convert(write_folder(tmp_path / "source", MIXTRAL, weights=own), tmp_path / "target")
    assert divided and name not in divided


@pytest.mark.parametrize(
    ("rule", "packed"), [(r"layers\.0\.=8", False), ("gate=8", False), ("moe.gate$=8", True), (r"gate\b=8", True)]
)
def test_only_a_rule_for_the_router_packs_it(tmp_path: Path, rule: str, packed: bool) -> None:
    source = LAYOUTS["hugging face"](tmp_path / "source", MIXTRAL, weights_of())
    convert(source, tmp_path / "target", rules=[rule])
    assert (f"model.layers.0{ROUTER}scales" in tensors(tmp_path / "target")) == packed


@pytest.mark.parametrize(
    ("kinds", "dtype"), [(("F16", "F32"), "F32"), (("BF16", "F16"), "F32"), (("F16", "F16"), "F16")]
)
def test_experts_of_several_dtypes_are_held_in_one_that_holds_all(kinds: tuple[str, ...], dtype: str) -> None:
    parts = tuple(Plain(Stored("experts", Path("file"), 0, 1, 4, kind), kind) for kind in kinds)
    assert Joined(parts).dtype == dtype


def test_a_dense_model_has_no_experts(tmp_path: Path) -> None:
    own = {name: mx.array(w) for name, w in per_expert(weights_of()).items()}
    with pytest.raises(CheckpointError, match="unknown to a mistral model"):
        convert(write_folder(tmp_path / "source", dense_config(), weights=own), tmp_path / "target")


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"expert_used_count": 5}, "llama.expert_used_count is 5; a whole number from 1 to 4 is expected"),
        ({"expert_used_count": 0}, "llama.expert_used_count is 0"),
        ({"expert_count": 1000}, "llama.expert_count is 1000"),
        ({"expert_count": 8}, "does not hold a matrix for each of 8 experts"),
        ({"expert_count": 0}, "llama.expert_used_count is 2, which"),
        ({"expert_shared_count": 1}, "llama.expert_shared_count is 1, which"),
    ],
)
def test_a_gguf_file_of_other_experts_is_refused(tmp_path: Path, counts: dict[str, int], said: str) -> None:
    write_gguf(tmp_path / "model.gguf", weights_of(), **counts)
    with pytest.raises(MistralMLXError, match=said):
        convert(tmp_path / "model.gguf", tmp_path / "target")


@pytest.mark.parametrize(
    ("moe", "said"),
    [
        ({"num_experts": 4}, "moe.num_experts_per_tok is missing"),
        ({"num_experts": 4, "num_experts_per_tok": 5}, "moe.num_experts_per_tok is 5; a whole number from 1 to 4"),
        ({"num_experts": 1 << 30, "num_experts_per_tok": 2}, "moe.num_experts is 1073741824"),
        ({"num_experts": 4, "num_experts_per_tok": 2, "num_shared_experts": 1}, "moe.num_shared_experts is 1, which"),
        ([4, 2], "moe is "),
        ({"num_experts": 8, "num_experts_per_tok": 2}, "there should be 8 experts"),
    ],
)
def test_params_of_other_experts_are_refused(tmp_path: Path, moe: object, said: str) -> None:
    own = {name: mx.array(w) for name, w in native(weights_of()).items()}
    write_native(tmp_path / "source", params() | {"moe": moe}, weights=own)
    with pytest.raises(MistralMLXError, match=said):
        convert(tmp_path / "source", tmp_path / "target")


def test_params_of_experts_with_scaled_positions_are_refused(tmp_path: Path) -> None:
    yarn = {"factor": 4.0, "original_max_position_embeddings": 128}
    own = {name: mx.array(w) for name, w in native(weights_of()).items()}
    write_native(tmp_path / "source", params() | {"yarn": yarn}, weights=own)
    with pytest.raises(ConfigError, match="moe together with yarn"):
        convert(tmp_path / "source", tmp_path / "target")


@pytest.mark.parametrize("layout", ["hugging face", "transformers 5", "mlx"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_folder_runs_without_conversion(tmp_path: Path, layout: str, change: str) -> None:
    config = MIXTRAL | CHANGES[change]
    weights = weights_of(config)
    model = load_model(LAYOUTS[layout](tmp_path / "source", config, weights))
    logits = np.array(model(mx.array([IDS])))[0]
    np.testing.assert_allclose(logits, reference.forward(model.args, weights, IDS), atol=1e-3)


@pytest.mark.parametrize("layout", ["hugging face", "transformers 5"])
@pytest.mark.parametrize(
    ("n_experts", "said"),
    [
        (3, r"the checkpoint has the tensor .*|tensor .* implies"),
        (5, r"the checkpoint has no tensor .*|tensor .* implies"),
    ],
)
def test_a_folder_of_other_experts_does_not_run(tmp_path: Path, layout: str, n_experts: int, said: str) -> None:
    source = LAYOUTS[layout](tmp_path / "source", MIXTRAL, weights_of())
    (source / "config.json").write_text(json.dumps(MIXTRAL | {"num_local_experts": n_experts}))
    with pytest.raises(CheckpointError, match=r"the checkpoint has (the|no) tensor .*|tensor .* implies"):
        load_model(source)


def test_a_window_is_remarked_on(tmp_path: Path) -> None:
    """Early copies of the config have one."""
    source = LAYOUTS["mlx"](tmp_path / "source", MIXTRAL | {"sliding_window": 4096}, weights_of())
    assert any("Mixtral has no sliding window" in note for note in convert(source, tmp_path / "target").notes)


@pytest.mark.parametrize("kind", ["tensor", "channel"])
def test_experts_in_fp8_are_read(tmp_path: Path, kind: str) -> None:
    own, dtypes, expected = per_expert(weights_of()), {}, []
    for e in range(4):
        name = f"{ONE}.{e}.w3.weight"
        scale, every = scales_of(own[name], kind)
        own[name], exact = encoded(own[name], every)
        own[f"{name}_scale_inv"], dtypes[name] = scale, "F8_E4M3"
        expected.append(exact)
    _write(tmp_path / "source", PER_TENSOR, own, dtypes)
    convert(tmp_path / "source", tmp_path / "plain", dequantize=True, dtype="float32")
    name = f"model.layers.0{EXPERTS}up_proj.weight"
    np.testing.assert_array_equal(tensors(tmp_path / "plain")[name], np.stack(expected))


@pytest.mark.parametrize("rule", [AWQ, GPTQ])
def test_experts_of_awq_and_gptq_are_carried_over(tmp_path: Path, rule: dict[str, object]) -> None:
    own, expected = per_expert(weights_of()), []
    for e in range(4):
        path = f"{ONE}.{e}.w3"
        parts = packed_tensor(own.pop(f"{path}.weight"), rule, None)
        expected.append(parts.pop("plain"))
        own |= {f"{path}.{part}": array for part, array in parts.items()}
    _write(tmp_path / "source", rule, own, {})
    convert(tmp_path / "source", tmp_path / "packed", dtype="float32")
    assert mx.load(str(tmp_path / "packed" / "model.safetensors"))[f"model.layers.0{EXPERTS}up_proj.scales"].ndim == 3
    convert(tmp_path / "packed", tmp_path / "plain", dequantize=True)
    name = f"model.layers.0{EXPERTS}up_proj.weight"
    np.testing.assert_allclose(tensors(tmp_path / "plain")[name], np.stack(expected), atol=1e-5)


def _write(path: Path, rule: dict[str, object], own: Weights, dtypes: dict[str, str]) -> None:
    path.mkdir()
    (path / "config.json").write_text(json.dumps(MIXTRAL | {"quantization_config": rule}))
    write_safetensors(path / "model.safetensors", own, dtypes)

"""mlx-lm reads the converter's folders and writes the same (a slow import, so alone here)."""

import json
import warnings
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.adapters import magnitudes, mlx_tensors, write_mlx
from helpers.convert_sources import (
    CONFIG,
    PARAMS,
    add_weights,
    bytes_to_unicode,
    close,
    gguf_writer,
    random_weights,
    with_tokenizer,
    write_folder,
    write_native,
)
from helpers.grouped_folders import AWQ, GPTQ, packed_folder
from helpers.mixtures import LAYOUTS, MIXTRAL, weights_of
from helpers.tokenizer_files import byte_level_json, write_json
from mlx.utils import tree_flatten, tree_unflatten
from oracles.graphs import CONFIGS, random_ids
from oracles.graphs import random_weights as oracle_weights

from mistral_mlx.convert import convert
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.loading import load_model

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import mlx_lm.tuner.utils
    import mlx_lm.utils


IDS = mx.array([[1, 5, 9, 33, 7]])


def logits(folder: Path) -> np.ndarray:
    model, _ = mlx_lm.utils.load_model(folder)
    return np.array(model(IDS).astype(mx.float32))


@pytest.mark.parametrize(("bits", "group_size", "tied"), [(4, 64, False), (8, 32, True), (4, 128, False)])
def test_tensors_and_config_are_those_mlx_lm_writes(tmp_path: Path, bits: int, group_size: int, tied: bool) -> None:
    config = {**CONFIG, "intermediate_size": 192, "tie_word_embeddings": tied}  # 192 is no multiple of 128
    source = write_folder(tmp_path / "source", config, shards=2)
    convert(source, tmp_path / "ours", bits=bits, group_size=group_size)

    model, read = mlx_lm.utils.load_model(source)
    model, read = mlx_lm.utils.quantize_model(model, read, group_size, bits)
    mlx_lm.utils.save_model(tmp_path / "theirs", model)
    mlx_lm.utils.save_config(read, tmp_path / "theirs" / "config.json")

    ours, theirs = (
        mx.load(str(tmp_path / who / "model.safetensors"), return_metadata=True) for who in ("ours", "theirs")
    )
    assert ours[1] == theirs[1] == {"format": "mlx"} and set(ours[0]) == set(theirs[0])
    for name, array in theirs[0].items():
        assert ours[0][name].dtype == array.dtype and mx.array_equal(ours[0][name], array), name
    for name in ("config.json", "model.safetensors.index.json"):
        found, expected = (json.loads((tmp_path / who / name).read_text()) for who in ("ours", "theirs"))
        assert found == expected
    np.testing.assert_array_equal(logits(tmp_path / "ours"), logits(tmp_path / "theirs"))


@pytest.mark.parametrize("name", ["ministral3", "ministral3, as Devstral 2", "llama, llama3", "mistral, yarn, window"])
def test_mlx_lm_finds_scaled_positions_in_our_config(tmp_path: Path, name: str) -> None:
    """It knows no window."""
    config = CONFIGS[name] | ({"sliding_window": None} if "sliding_window" in CONFIGS[name] else {})
    weights = oracle_weights(expected_shapes(ModelArgs.from_config(config)))
    source = write_folder(tmp_path / "source", config, weights={key: mx.array(w) for key, w in weights.items()})
    convert(source, tmp_path / "ours", dequantize=True)
    ids, (theirs, _) = mx.array(random_ids())[None], mlx_lm.utils.load_model(tmp_path / "ours")
    assert mx.abs(theirs(ids) - load_model(tmp_path / "ours")(ids)).max().item() < 1e-3


@pytest.mark.parametrize("mode", ["mxfp4", "mxfp8", "nvfp4"])
def test_float_modes_are_those_mlx_lm_writes_and_reads(tmp_path: Path, mode: str) -> None:
    source = write_folder(tmp_path / "source", {**CONFIG, "sliding_window": None})
    convert(source, tmp_path / "ours", mode=mode)
    model, config = mlx_lm.utils.quantize_model(*mlx_lm.utils.load_model(source), None, None, mode)
    mlx_lm.utils.save_model(tmp_path / "theirs", model)
    mlx_lm.utils.save_config(config, tmp_path / "theirs" / "config.json")
    ours, theirs = (mx.load(str(tmp_path / who / "model.safetensors")) for who in ("ours", "theirs"))
    assert ours.keys() == theirs.keys()
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype and mx.array_equal(ours[name], array), name
    found, expected = (json.loads((tmp_path / who / "config.json").read_text()) for who in ("ours", "theirs"))
    assert found == expected
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        expected = logits(folder)
        np.testing.assert_allclose(np.array(load_model(folder)(IDS)), expected, atol=2e-2 * np.abs(expected).max())


@pytest.mark.usefixtures("exact_products")
def test_both_programs_compute_the_same_from_either_folder(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", {**CONFIG, "sliding_window": None})
    convert(source, tmp_path / "ours", bits=4, group_size=32, dtype="float32")
    model, config = mlx_lm.utils.quantize_model(*mlx_lm.utils.load_model(source), 32, 4)
    mlx_lm.utils.save_model(tmp_path / "theirs", model)
    mlx_lm.utils.save_config(config, tmp_path / "theirs" / "config.json")
    for folder in (tmp_path / "ours", tmp_path / "theirs"):
        expected = logits(folder)
        np.testing.assert_allclose(np.array(load_model(folder)(IDS)), expected, atol=1e-3 * np.abs(expected).max())


def test_a_mixed_gguf_gives_the_logits_of_its_unpacked_weights(tmp_path: Path) -> None:
    writer = gguf_writer(tmp_path / "mixed.gguf")
    weights = random_weights(CONFIG)
    stored = add_weights(writer, weights, dict.fromkeys(weights, "Q4_1") | {"model.embed_tokens.weight": "Q8_0"})
    convert(close(writer), tmp_path / "target", dtype="float32")
    reference = {**CONFIG, "model_type": "llama"}
    plain = write_folder(tmp_path / "plain", reference, weights={name: mx.array(w) for name, w in stored.items()})
    np.testing.assert_allclose(logits(tmp_path / "target"), logits(plain), atol=1e-4)


@pytest.mark.parametrize("window", [None, [None, 3]])
def test_mistrals_own_layout_gives_the_logits_of_the_same_weights(tmp_path: Path, window: object) -> None:
    convert(write_native(tmp_path / "native", {**PARAMS, "_sliding_window": window}), tmp_path / "target", bits=8)
    layers = {"sliding_window": 3, "layer_types": ["full_attention", "sliding_attention"]} if window else {}
    convert(write_folder(tmp_path / "plain", {**CONFIG, **layers}), tmp_path / "expected", bits=8)
    np.testing.assert_array_equal(logits(tmp_path / "target"), logits(tmp_path / "expected"))
    scale = np.abs(logits(tmp_path / "target")).max()
    np.testing.assert_allclose(
        np.array(load_model(tmp_path / "target")(IDS)), logits(tmp_path / "target"), atol=1e-3 * scale
    )


def test_awq_is_read_as_mlx_lm_reads_it(tmp_path: Path) -> None:
    packed_folder(tmp_path / "source", AWQ)
    convert(tmp_path / "source", tmp_path / "target")
    theirs, _ = mlx_lm.utils._transform_awq_weights(mx.load(str(tmp_path / "source" / "model.safetensors")), AWQ)
    ours = mx.load(str(tmp_path / "target" / "model.safetensors"))
    assert set(ours) == set(theirs)
    for name, array in theirs.items():
        assert ours[name].dtype == array.dtype and mx.array_equal(ours[name], array), name


def test_gptq_is_not_read_as_mlx_lm_reads_it(tmp_path: Path) -> None:
    """mlx-lm refuses a g_idx, which AutoGPTQ always writes, and without one takes GPTQ's words for AWQ's.

    Its words then belong to a matrix of another shape. AutoGPTQ's own arithmetic, which is ours, gives what went in.
    """
    names = [name.removesuffix(".weight") for name in random_weights(CONFIG) if "proj" in name]
    without = {f"{name.replace('.', '__')}__g_idx": None for name in names}
    plain = packed_folder(tmp_path / "source", GPTQ, **without)
    convert(tmp_path / "source", tmp_path / "target", dtype="float32")
    ours = mx.load(str(tmp_path / "target" / "model.safetensors"))
    theirs, _ = mlx_lm.utils._transform_awq_weights(mx.load(str(tmp_path / "source" / "model.safetensors")), GPTQ)
    name = names[0]
    assert theirs[f"{name}.weight"].shape == (8 * 128, 128 // 8 // 8) != ours[f"{name}.weight"].shape
    unpacked = mx.dequantize(
        *(ours[f"{name}.{part}"] for part in ("weight", "scales", "biases")), group_size=64, bits=4
    )
    np.testing.assert_allclose(np.array(unpacked), plain[f"{name}.weight"], atol=1e-6)


@pytest.mark.parametrize("kind", ["lora", "dora"])
def test_a_merged_adapter_is_what_mlx_lm_fuses(tmp_path: Path, kind: str) -> None:
    source = write_folder(tmp_path / "source")
    tensors = mlx_tensors(magnitudes() if kind == "dora" else None)
    adapter = write_mlx(tmp_path / "adapter", tensors, fine_tune_type=kind)
    convert(source, tmp_path / "ours", dequantize=True, adapter=adapter)
    model, _ = mlx_lm.utils.load_model(source)
    mlx_lm.tuner.utils.load_adapters(model, str(adapter))
    fused = [(name, module.fuse()) for name, module in model.named_modules() if hasattr(module, "fuse")]
    model.update_modules(tree_unflatten(fused))
    ours, theirs = mx.load(str(tmp_path / "ours" / "model.safetensors")), dict(tree_flatten(model.parameters()))
    assert set(ours) == set(theirs)
    for name, weight in theirs.items():
        np.testing.assert_allclose(np.array(ours[name]), np.array(weight), atol=2e-6 * float(mx.abs(weight).max()))


TEMPLATE = "{% for m in messages %}<|start|>{{ m.content }}{% endfor %}"


@pytest.mark.parametrize("add_bos", [True, False])
def test_a_rebuilt_byte_level_tokenizer_loads(tmp_path: Path, add_bos: bool) -> None:
    tokens = [*bytes_to_unicode(), "aa", "<|start|>", "<|end|>"]
    path = with_tokenizer(
        tmp_path / "x.gguf", "gpt2", tokens, [1] * 257 + [3, 3], merges=["a a"], pre="smollm",
        bos_token_id=257, eos_token_id=258, add_bos_token=add_bos, chat_template=TEMPLATE,
    )  # fmt: skip
    convert(path, tmp_path / "target")
    tokenizer = mlx_lm.utils.load_tokenizer(tmp_path / "target")
    bos = [257] if add_bos else []
    assert tokenizer.encode("aab12<|end|>") == bos + [256] + [tokens.index(c) for c in "b12"] + [258]
    assert tokenizer.apply_chat_template([{"role": "user", "content": "aa"}], return_dict=False) == [257, 256]
    assert tokenizer.eos_token_ids == {258}


def test_a_rebuilt_sentencepiece_tokenizer_loads(tmp_path: Path) -> None:
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{b:02X}>" for b in range(256)), "\u2581a", "\u2581", "a"]
    scores = [0.0] * 259 + [-1.0, -2.0, -3.0]
    path = with_tokenizer(
        tmp_path / "x.gguf", "llama", tokens, [2, 3, 3] + [6] * 256 + [1] * 3, scores=scores,
        bos_token_id=1, eos_token_id=2, unknown_token_id=0,
    )  # fmt: skip
    convert(path, tmp_path / "target")
    tokenizer = mlx_lm.utils.load_tokenizer(tmp_path / "target")
    assert tokenizer.encode("a aab") == [1, 259, 259, 261, 3 + ord("b")]
    assert tokenizer.eos_token_ids == {2}


@pytest.mark.parametrize(
    ("method", "exceptions"),
    [
        ("awq", {key: {"group_size": 32, "bits": 4, "mode": "affine"} for key in ("model.embed_tokens", "lm_head")}),
        ("gptq", {"model.embed_tokens": {"group_size": 64, "bits": 6, "mode": "affine"}}),
        ("dwq", {}),
    ],
)
@pytest.mark.usefixtures("exact_products")
def test_what_mlx_lm_learns_is_a_target_like_any_other(
    tmp_path: Path, method: str, exceptions: dict[str, object]
) -> None:
    tokenizer = json.loads(byte_level_json())
    config = {**CONFIG, "vocab_size": 1 + max(tokenizer["model"]["vocab"].values()), "max_position_embeddings": 32}
    source = write_folder(tmp_path / "source", config)
    write_json(source, "tokenizer.json", tokenizer)
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog. " * 8)
    report = convert(source, tmp_path / "ours", method=method, calibrate=tmp_path / "text.txt")
    convert(source, tmp_path / "nearest", bits=4)

    assert report.notes[-1].startswith(f"quantized by mlx-lm's {method.upper()}, which learned from ")
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == [
        "config.json", "model.safetensors", "model.safetensors.index.json", "tokenizer.json"
    ]  # fmt: skip
    found = json.loads((tmp_path / "ours" / "config.json").read_text())
    assert found["quantization"] == {"group_size": 64, "bits": 4, "mode": "affine", **exceptions}
    ours, nearest = (mx.load(str(tmp_path / name / "model.safetensors")) for name in ("ours", "nearest"))
    assert set(ours) == set(nearest)
    learned = "scales" if method == "dwq" else "weight"  # DWQ trains scales and biases
    assert not mx.array_equal(*(t[f"model.layers.0.mlp.down_proj.{learned}"] for t in (ours, nearest)))
    expected = logits(tmp_path / "ours")
    np.testing.assert_allclose(
        np.array(load_model(tmp_path / "ours")(IDS)), expected, atol=3e-3 * np.abs(expected).max()
    )


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("options", [{"bits": 4}, {"bits": 8, "group_size": 32}, {"dequantize": True}])
def test_mlx_lm_computes_a_mixture_from_our_folder(tmp_path: Path, layout: str, options: dict[str, int]) -> None:
    convert(LAYOUTS[layout](tmp_path / "source", MIXTRAL, weights_of()), tmp_path / "ours", **options)
    expected = logits(tmp_path / "ours")
    found = np.array(load_model(tmp_path / "ours")(IDS))
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.usefixtures("exact_products")
def test_a_mixture_that_mlx_lm_packs_is_run_and_unpacked(tmp_path: Path) -> None:
    """It packs the router, too."""
    source = LAYOUTS["hugging face"](tmp_path / "source", MIXTRAL, weights_of())
    model, config = mlx_lm.utils.quantize_model(*mlx_lm.utils.load_model(source), 64, 8)
    mlx_lm.utils.save_model(tmp_path / "theirs", model)
    mlx_lm.utils.save_config(config, tmp_path / "theirs" / "config.json")
    assert "model.layers.0.block_sparse_moe.gate.scales" in mx.load(str(tmp_path / "theirs" / "model.safetensors"))
    convert(tmp_path / "theirs", tmp_path / "plain", dequantize=True)
    expected = logits(tmp_path / "theirs")
    for name in ("theirs", "plain"):
        found = np.array(load_model(tmp_path / name)(IDS))
        np.testing.assert_allclose(found, expected, atol=5e-3 * np.abs(expected).max())

"""Loading a folder: which folders load, and which weights the model gets."""

import json

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import LetterTokenizer, tiny_config, tiny_weights, write_folder
from helpers.weight_files import rewrite, shard, two_shards
from mlx.utils import tree_flatten
from reference import forward

from mistral_mlx.errors import CheckpointError, ModelError, TokenizerError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import load, load_model, read_args

IDS = np.random.default_rng(1).integers(0, 64, 20)


def assert_close_to_reference(model, args, weights):
    """Packed products round their activations to 16 bits."""
    expected = forward(args, weights, IDS)
    assert np.abs(logits(model) - expected).max() < 1e-3 * np.abs(expected).max()


def logits(model):
    return np.array(model(mx.array(IDS[None])))[0]


def reconfigure(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**json.loads((folder / "config.json").read_text()), **changes}))


@pytest.mark.cpu
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_a_folder_that_was_never_converted_runs_as_it_is(tmp_path, exact_cache, exact_products, dtype):
    config = tiny_config()
    args = ModelArgs.from_config(config)
    weights = {name: mx.array(w).astype(dtype) for name, w in tiny_weights(args).items()}
    model = load_model(write_folder(tmp_path / "m", config, weights))
    exact = {name: np.array(w.astype(mx.float32)) for name, w in weights.items()}
    np.testing.assert_allclose(logits(model), forward(args, exact, IDS), atol=1e-4)
    assert model.model.layers[0].mlp.up_proj.weight.dtype == dtype


def test_packed_modules_are_those_that_have_scales(tmp_path, exact_products):
    """As in mlx-community folders: one module with other bits, one not packed at all."""
    quantization = {"group_size": 32, "bits": 4, "mode": "affine", "lm_head": {"group_size": 32, "bits": 8}}
    quantization["model.layers.0.mlp.up_proj"] = False
    config = tiny_config(quantization=quantization)
    args = ModelArgs.from_config(config)
    packed, exact = {}, {}
    for name, w in tiny_weights(args).items():
        path = name.removesuffix(".weight")
        if w.ndim == 1 or path == "model.layers.0.mlp.up_proj":
            packed[name] = exact[name] = w
            continue
        parts = mx.quantize(mx.array(w), 32, 8 if path == "lm_head" else 4)
        packed |= dict(zip((name, f"{path}.scales", f"{path}.biases"), parts, strict=True))
        exact[name] = np.array(mx.dequantize(*parts, 32, 8 if path == "lm_head" else 4))
    model = load_model(write_folder(tmp_path / "m", config, packed))
    assert_close_to_reference(model, args, exact)


def test_shards_are_exactly_those_of_the_index(folder):
    whole = logits(load_model(folder))
    shard(folder, two_shards)
    mx.save_safetensors(str(folder / "model-extra.safetensors"), {"lm_head.weight": mx.zeros((64, 32))})
    np.testing.assert_array_equal(logits(load_model(folder)), whole)


def test_a_link_out_of_the_folder_is_refused_and_one_of_a_hub_cache_is_not(folder):
    whole = logits(load_model(folder))
    snapshot = folder.parent / "hub" / "snapshots" / "abc"
    (folder.parent / "hub" / "blobs").mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).rename(snapshot.parent.parent / "blobs" / name)
        (snapshot / name).symlink_to(f"../../blobs/{name}")
        (folder / name).symlink_to(f"../hub/blobs/{name}")
    np.testing.assert_array_equal(logits(load_model(snapshot)), whole)
    with pytest.raises(ModelError, match="link out of"):
        load_model(folder)


DIGEST = "ab" + "0123456789abcdef" * 4


@pytest.fixture
def shared(folder):
    """A snapshot as huggingface_hub 2 stores it: its weights are a link to a link to a blob of all models."""
    cache = folder.parent / "hub"
    snapshot, blobs = cache / "models--a--b" / "snapshots" / "rev", cache / "models--a--b" / "blobs"
    blob = cache / "blobs" / DIGEST[:2] / DIGEST[2:]
    for made in (snapshot, blobs, blob.parent):
        made.mkdir(parents=True)
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("1\n")
    (folder / "model.safetensors").rename(blob)
    (blobs / "etag").symlink_to(f"../../blobs/{DIGEST[:2]}/{DIGEST[2:]}")
    (snapshot / "model.safetensors").symlink_to("../../blobs/etag")
    (folder / "config.json").rename(snapshot / "config.json")
    return snapshot


def test_a_blob_that_the_models_of_a_hub_cache_share_is_read(shared):
    load_model(shared)


def no_marker(cache):
    (cache / "blobs" / ".huggingface-shared-blobs").unlink()


def other_marker(cache):
    (cache / "blobs" / ".huggingface-shared-blobs").write_text("2\n")


def linked_marker(cache):
    no_marker(cache)
    (cache / "marker").write_text("1\n")
    (cache / "blobs" / ".huggingface-shared-blobs").symlink_to("../marker")


def other_name(cache):
    (cache / "blobs" / DIGEST[:2] / DIGEST[2:]).rename(cache / "blobs" / "secret")
    link = cache / "models--a--b" / "blobs" / "etag"
    link.unlink()
    link.symlink_to("../../blobs/secret")


def no_model(cache):
    (cache / "models--a--b").rename(cache / "a--b")


@pytest.mark.parametrize("change", [no_marker, other_marker, linked_marker, other_name, no_model])
def test_what_only_looks_like_a_shared_blob_is_refused(shared, change):
    cache = shared.parents[2]
    change(cache)
    with pytest.raises(ModelError, match="link out of"):
        load_model(next(cache.glob("*/snapshots/rev")))


def test_the_weights_decide_about_the_head(folder):
    reconfigure(folder, tie_word_embeddings=True)
    untied = logits(load_model(folder))
    rewrite(folder, **{"lm_head.weight": None})
    assert np.abs(logits(load_model(folder)) - untied).max() > 0.1
    reconfigure(folder, tie_word_embeddings=False)
    with pytest.raises(CheckpointError, match=r"lm_head.weight"):
        load_model(folder)


def test_multimodal_checkpoints_give_their_text_model(folder):
    whole = logits(load_model(folder))
    config = json.loads((folder / "config.json").read_text())
    weights = {f"language_model.{k}": v for k, v in mx.load(str(folder / "model.safetensors")).items()}
    weights["vision_tower.patch_conv.weight"] = mx.zeros((3, 3))
    nested = write_folder(folder.parent / "nested", {"model_type": "mistral3", "text_config": config}, weights)
    np.testing.assert_array_equal(logits(load_model(nested)), whole)


def test_stop_ids_of_the_generation_config_are_added(folder):
    (folder / "generation_config.json").write_text('{"eos_token_id": [5, 6]}')
    assert read_args(ModelFolder(folder)).eos_token_ids == {2, 5, 6}


def test_old_exports_of_rope_frequencies_are_ignored(folder):
    rewrite(folder, **{"model.layers.0.self_attn.rotary_emb.inv_freq": mx.zeros((4,))})
    load_model(folder)


@pytest.mark.cpu
def test_packed_half_precision_is_computed_in_float32_on_the_cpu(exact_products, tmp_path, exact_cache):
    """Scales in float16 must not round activations or unpacked weights."""
    config = tiny_config(quantization={"group_size": 32, "bits": 4})
    args = ModelArgs.from_config(config)
    packed, exact = {}, {}
    for name, w in tiny_weights(args).items():
        if w.ndim == 1:
            packed[name] = exact[name] = w
            continue
        parts = mx.quantize(mx.array(w).astype(mx.float16), 32, 4)
        packed |= dict(zip((name, name[:-6] + "scales", name[:-6] + "biases"), parts, strict=True))
        exact[name] = np.array(mx.dequantize(parts[0], *(part.astype(mx.float32) for part in parts[1:]), 32, 4))
    model = load_model(write_folder(tmp_path / "m", config, packed))
    assert_close_to_reference(model, args, exact)


def test_on_a_gpu_every_float_has_the_dtype_of_the_embedding(folder, monkeypatch):
    """One float32 tensor among float16 ones used to move everything behind it to float32."""
    half = {name: w.astype(mx.float16) for name, w in mx.load(str(folder / "model.safetensors")).items()}
    half["model.norm.weight"] = half["model.norm.weight"].astype(mx.float32)
    rewrite(folder, **half)
    monkeypatch.setattr("mistral_mlx.kernels.on_cpu", lambda: False)
    assert {w.dtype for _, w in tree_flatten(load_model(folder).parameters())} == {mx.float16}


def test_a_control_token_beyond_the_embedding_is_harmless_and_other_ids_are_not(folder, monkeypatch):
    """Fine-tunes add a [PAD] that no text ever becomes."""
    tokenizer = LetterTokenizer()
    monkeypatch.setattr("mistral_mlx.model.loading.load_tokenizer", lambda path: tokenizer)
    tokenizer.vocab_size = 65
    with pytest.raises(TokenizerError, match="has 65 tokens, the model only 64"):
        load(folder)
    tokenizer.control = {**tokenizer.control, "[PAD]": 64}
    assert load(folder)[1] is tokenizer

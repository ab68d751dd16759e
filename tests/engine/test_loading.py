"""Loading a folder: which folders load, and how every kind of damage is refused."""

import json
import os
import struct

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import LetterTokenizer, tiny_config, tiny_weights, write_folder
from mlx.utils import tree_flatten
from reference import forward

from mistral_mlx.errors import CheckpointError, ConfigError, ModelError, TokenizerError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import load, load_model, read_args

IDS = np.random.default_rng(1).integers(0, 64, 20)


@pytest.fixture
def folder(tmp_path):
    config = tiny_config()
    return write_folder(tmp_path / "model", config, tiny_weights(ModelArgs.from_config(config)))


def assert_close_to_reference(model, args, weights):
    """Packed products round their activations to 16 bits."""
    expected = forward(args, weights, IDS)
    assert np.abs(logits(model) - expected).max() < 1e-3 * np.abs(expected).max()


def logits(model):
    return np.array(model(mx.array(IDS[None])))[0]


def rewrite(folder, **changes):
    """Save the weights again with some of them replaced, or left out if None."""
    weights = {**mx.load(str(folder / "model.safetensors")), **changes}
    mx.eval([w for w in weights.values() if w is not None])
    mx.save_safetensors(str(folder / "model.safetensors"), {k: v for k, v in weights.items() if v is not None})


def reconfigure(folder, **changes):
    (folder / "config.json").write_text(json.dumps({**json.loads((folder / "config.json").read_text()), **changes}))


def rewrite_header(folder, edit):
    """Change the header of the weights file by `edit(dict)`, the data staying as it is."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    text = edit(header)
    raw = (text if isinstance(text, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + n :])


def shard(folder, places):
    """Split the weights over files by `places(name)`, with an index."""
    weights = mx.load(str(folder / "model.safetensors"))
    mx.eval(list(weights.values()))
    (folder / "model.safetensors").unlink()
    files = {}
    for name, weight in weights.items():
        files.setdefault(places(name), {})[name] = weight
    for file, part in files.items():
        mx.save_safetensors(str(folder / file), part)
    index = {"weight_map": {name: places(name) for name in weights}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return index


def two_shards(name):
    return f"model-0000{1 + ('layers.1' in name)}-of-00002.safetensors"


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
def test_a_folder_that_was_never_converted_runs_as_it_is(tmp_path, exact_cache, dtype):
    config = tiny_config()
    args = ModelArgs.from_config(config)
    weights = {name: mx.array(w).astype(dtype) for name, w in tiny_weights(args).items()}
    model = load_model(write_folder(tmp_path / "m", config, weights))
    exact = {name: np.array(w.astype(mx.float32)) for name, w in weights.items()}
    np.testing.assert_allclose(logits(model), forward(args, exact, IDS), atol=1e-4)
    assert model.model.layers[0].mlp.up_proj.weight.dtype == dtype


def test_packed_modules_are_those_that_have_scales(tmp_path):
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


def test_a_missing_shard_is_named_and_counted(folder):
    shard(folder, two_shards)
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002.safetensors is missing.*lists 2 files, 1 are"):
        load_model(folder)


@pytest.mark.parametrize("place", ["../evil.safetensors", "/etc/evil.safetensors", "a/b.safetensors", "model.bin", 7])
def test_an_index_cannot_lead_out_of_the_folder(folder, place):
    mx.save_safetensors(str(folder.parent / "evil.safetensors"), {"lm_head.weight": mx.zeros((64, 32))})
    index = shard(folder, two_shards)
    index["weight_map"]["lm_head.weight"] = place
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelError, match=r"plain file name|not a safetensors file"):
        load_model(folder)


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


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model.norm.weight": None}, r"has no tensor model\.norm\.weight"),
        ({"extra.weight": mx.zeros((2, 2))}, r"tensor extra\.weight, which this model does not use"),
        ({"model.norm.weight": mx.zeros((33,))}, r"model\.norm\.weight is F32 \[33\].*\[32\]"),
        ({"model.norm.weight": mx.zeros((32,), mx.int32)}, r"model\.norm\.weight is I32"),
        ({"lm_head.scales": mx.zeros((64, 1))}, r"lm_head has scales, but config\.json has no quantization"),
    ],
    ids=["missing", "unknown", "shape", "dtype", "scales"],
)
def test_tensors_must_be_what_the_config_implies(folder, changes, said):
    rewrite(folder, **changes)
    with pytest.raises(CheckpointError, match=said):
        load_model(folder)


@pytest.mark.parametrize("cut", [1, 1000])
def test_a_file_cut_short_is_named_with_both_sizes(folder, cut):
    path = folder / "model.safetensors"
    size = path.stat().st_size
    os.truncate(path, size - cut)
    with pytest.raises(
        CheckpointError, match=f"model.safetensors is cut short.*{size} bytes, the file has {size - cut}"
    ):
        load_model(folder)


def test_bytes_behind_the_data_are_damage_too(folder):
    with (folder / "model.safetensors").open("ab") as file:
        file.write(b"x")
    with pytest.raises(CheckpointError, match="damaged"):
        load_model(folder)


def overlap(header):
    header["model.norm.weight"]["data_offsets"] = header["model.layers.0.input_layernorm.weight"]["data_offsets"]


def duplicate(header):
    entry = json.dumps(header["model.norm.weight"])
    return json.dumps(header)[:-1] + f', "model.norm.weight": {entry}}}'


def negative(header):
    header["model.norm.weight"]["shape"] = [-32]


def huge(header):
    header["model.norm.weight"]["shape"] = [2**62, 2**62]


def fractional(header):
    header["model.norm.weight"]["shape"] = [32.0]


def strange_dtype(header):
    header["model.norm.weight"]["dtype"] = "F7"


def wrong_size(header):
    header["model.norm.weight"]["dtype"] = "F16"


def more_keys(header):
    header["model.norm.weight"]["code"] = "import os"


def nonsense(header):
    return "[" * 100_000


@pytest.mark.parametrize(
    "edit", [overlap, duplicate, negative, huge, fractional, strange_dtype, wrong_size, more_keys, nonsense]
)
def test_headers_that_lie_are_refused(folder, edit):
    rewrite_header(folder, edit)
    with pytest.raises(CheckpointError):
        load_model(folder)


@pytest.mark.parametrize("content", [b"", b"\0" * 7, b"\xff" * 8, struct.pack("<Q", 2**40) + b"{}", b"PK\x03\x04" * 9])
def test_files_that_are_no_safetensors_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        load_model(folder)


def test_a_giant_header_is_not_read(folder):
    with (folder / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", 100_000_000))
        file.truncate(100_000_008)
    with pytest.raises(CheckpointError, match="a header of 100000000 bytes"):
        load_model(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth"])
def test_pickles_are_never_opened(folder, name):
    (folder / "model.safetensors").rename(folder / name)
    with pytest.raises(CheckpointError, match=r"never opened.*safetensors"):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"a": NaN}', '{"a": 1, "a": 2}', "[" * 100_000, "\ufeff{}"])
def test_a_broken_config_is_refused(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(folder)


def test_what_is_not_there_is_said(tmp_path, folder):
    with pytest.raises(ModelError, match="no such model directory"):
        load_model(tmp_path / "nothing")
    (folder / "config.json").unlink()
    with pytest.raises(ModelError, match=r"config\.json is missing"):
        load_model(folder)


def test_names_with_control_characters_are_shown_inert(folder):
    rewrite(folder, **{"evil\x1b[2J": mx.zeros((1,))})
    with pytest.raises(CheckpointError) as error:
        load_model(folder)
    assert "\x1b" not in str(error.value)
    assert "evil" in str(error.value)


def test_packed_half_precision_is_computed_in_float32_on_the_cpu(tmp_path, exact_cache):
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

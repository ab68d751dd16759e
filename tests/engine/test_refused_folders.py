"""Loading a damaged folder: each kind of damage is refused by name."""

import json
import os
import struct

import mlx.core as mx
import pytest
from helpers.weight_files import rewrite, shard, two_shards

from mistral_mlx.errors import CheckpointError, ConfigError, ModelError
from mistral_mlx.model.loading import load_model


def rewrite_header(folder, edit):
    """Change the header of the weights file by `edit(dict)`, the data staying as it is."""
    path = folder / "model.safetensors"
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    header = json.loads(data[8 : 8 + n])
    text = edit(header)
    raw = (text if isinstance(text, str) else json.dumps(header)).encode()
    path.write_bytes(struct.pack("<Q", len(raw)) + raw + data[8 + n :])


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
        CheckpointError, match=f"model.safetensors is cut short.*{size:,} bytes, the file has {size - cut:,}"
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
    with pytest.raises(CheckpointError, match="a header of 100,000,000 bytes"):
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

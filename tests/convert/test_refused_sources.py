"""Damaged sources and files that are no model: each is refused by name."""

import json
import os
from pathlib import Path

import pytest
from helpers.convert_sources import write_folder
from helpers.folder_contents import content

from mistral_mlx.convert import convert
from mistral_mlx.errors import CheckpointError, ModelError


def test_a_source_cut_by_one_byte_is_refused_with_both_sizes(tmp_path: Path, source: Path) -> None:
    whole = (source / "model.safetensors").stat().st_size
    os.truncate(source / "model.safetensors", whole - 1)
    with pytest.raises(CheckpointError, match=f"{whole:,} bytes, the file has {whole - 1:,}"):
        convert(source, tmp_path / "target")


def test_a_missing_shard_is_named_and_a_stray_one_ignored(tmp_path: Path) -> None:
    source = write_folder(tmp_path / "source", shards=3)
    convert(source, tmp_path / "clean")
    (source / "model-00004-of-00003.safetensors").write_bytes(b"stray")
    convert(source, tmp_path / "target")
    assert content(tmp_path / "target") == content(tmp_path / "clean")
    (source / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"model-00002-of-00003\.safetensors is missing"):
        convert(source, tmp_path / "other")


@pytest.mark.parametrize("name", ["../outside.safetensors", "/etc/outside.safetensors", "sub/x.safetensors"])
def test_an_index_pointing_out_of_the_folder_is_refused(tmp_path: Path, source: Path, name: str) -> None:
    (tmp_path / "outside.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    (source / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    with pytest.raises(ModelError, match="not a plain file name"):
        convert(source, tmp_path / "target")


def test_a_tokenizer_linked_from_elsewhere_is_refused(tmp_path: Path, source: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (source / "tokenizer.json").symlink_to(tmp_path / "secret")
    with pytest.raises(ModelError, match="link out of"):
        convert(source, tmp_path / "target")


def test_a_source_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(ModelError, match=r"neither a model directory nor a GGUF file"):
        convert(tmp_path / "notes.txt", tmp_path / "target")
    with pytest.raises(ModelError, match="no such model directory"):
        convert(tmp_path / "nowhere", tmp_path / "target")

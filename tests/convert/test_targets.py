"""Which targets a conversion replaces, and which it refuses."""

import os
from pathlib import Path

import pytest
from helpers.folder_contents import WHOLE, content, names

from mistral_mlx.convert import convert
from mistral_mlx.errors import ConversionError


def test_an_existing_target_stays_without_overwrite_and_is_replaced_with_it(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "target", bits=8)
    before = content(tmp_path / "target")
    with pytest.raises(ConversionError, match="exists; name another one, or replace it with --overwrite"):
        convert(source, tmp_path / "target")
    assert content(tmp_path / "target") == before
    convert(source, tmp_path / "target", bits=4, overwrite=True)
    convert(source, tmp_path / "fresh", bits=4)
    assert content(tmp_path / "target") == content(tmp_path / "fresh")
    assert names(tmp_path) == ["fresh", "source", "target"]


@pytest.mark.parametrize("what", ["file", "link"])
def test_overwrite_replaces_no_file_and_no_link(tmp_path: Path, source: Path, what: str) -> None:
    target = tmp_path / "target"
    if what == "file":
        target.write_text("mine")
    else:
        target.symlink_to(source)
    with pytest.raises(ConversionError, match=r"is not a model folder, so it is never replaced|lie inside one another"):
        convert(source, target, overwrite=True)
    assert names(tmp_path) == ["source", "target"]


MODEL = {"config.json": '{"model_type": "mistral"}', "model.safetensors": ""}


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({"mine": ""}, "holds mine, which no model folder has"),
        ({**MODEL, "thesis.txt": ""}, "holds thesis.txt, which no model folder has"),
        ({**MODEL, "app.js": ""}, "holds app.js, which no model folder has"),
        ({**MODEL, "photos/a.json": ""}, "holds photos, which no model folder has"),
        ({**MODEL, "photos.json/a": ""}, "holds photos.json, which no model folder has"),
        ({**MODEL, "config.json": '{"port": 80}'}, "no config.json with a model_type"),
        ({**MODEL, "config.json": "["}, "no config.json with a model_type"),
        ({"model.safetensors": ""}, "no config.json with a model_type"),
        ({"config.json": MODEL["config.json"]}, r"holds no \*\.safetensors"),
    ],
)
def test_overwrite_replaces_nothing_but_a_model_folder(
    tmp_path: Path, source: Path, files: dict[str, str], reason: str
) -> None:
    """Any folder without subfolders that held a config.json was replaced, whatever else was in it."""
    for name, text in files.items():
        (tmp_path / "target" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "target" / name).write_text(text)
    with pytest.raises(ConversionError, match=rf"{reason}.*, so it is never replaced; remove it yourself"):
        convert(source, tmp_path / "target", overwrite=True)
    assert sorted(str(p.relative_to(tmp_path / "target")) for p in (tmp_path / "target").rglob("*") if p.is_file()) == (
        sorted(files)
    )


def test_overwrite_replaces_a_folder_as_the_hub_gives_it(tmp_path: Path, source: Path) -> None:
    convert(source, tmp_path / "target", bits=8)
    for name in (
        ".gitattributes",
        "README.md",
        "LICENSE.txt",
        "merges.txt",
        "tokenizer.model.v3",
        "chat_template.jinja",
    ):
        (tmp_path / "target" / name).write_text("")
    convert(source, tmp_path / "target", overwrite=True)
    assert names(tmp_path / "target") == WHOLE


@pytest.mark.parametrize("target", [".", "inside", "../source", ".."])
def test_a_target_in_or_around_the_source_is_refused(source: Path, target: str) -> None:
    before = content(source)
    with pytest.raises(ConversionError, match="lie inside one another"):
        convert(source, source / target, overwrite=True)
    assert content(source) == before


def test_a_missing_parent_is_named(tmp_path: Path, source: Path) -> None:
    with pytest.raises(ConversionError, match=r"no/such does not exist; make it first"):
        convert(source, tmp_path / "no" / "such" / "target")


def test_a_parent_that_cannot_be_written_to_is_named(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write everywhere
    with pytest.raises(ConversionError, match="cannot be written to"):
        convert(source, tmp_path / "target")

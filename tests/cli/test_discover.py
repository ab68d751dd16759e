"""`models --discover`: what all programs have on the disk, and whether it runs."""

import json
import shutil
from pathlib import Path

import pytest
from helpers.cli import one_line, run
from helpers.invoke import invoke
from helpers.models import write_folder
from helpers.other_programs import COMMIT, hub_snapshot, ollama_manifest, ollama_model, studio_model
from helpers.plain_gguf import plain

from mistral_mlx.cli.models.registry import register

pytestmark = pytest.mark.usefixtures("disk")


def discovered():
    records = json.loads(invoke("models", "--discover", "--json").stdout)
    return {record["name"]: record for record in records}


def test_what_all_programs_have_is_listed_with_its_state(folder, disk, tmp_path):
    hub = disk / ".cache/huggingface/hub"
    gguf = plain(tmp_path / "tiny.gguf")
    hub_snapshot(hub, "a/runs", folder)
    hub_snapshot(hub, "a/pinned", folder, ref=None)
    (hub_snapshot(hub, "a/half", folder) / "model.safetensors").unlink()
    write_folder(tmp_path / "other", {"model_type": "qwen3"}, {})
    hub_snapshot(hub, "a/other", tmp_path / "other")
    (hub / "datasets--a--texts").mkdir()
    studio_model(disk / ".lmstudio", "b/gguf", gguf)
    ollama_model(disk / ".ollama/models", "registry.ollama.ai/library/tiny/7b", gguf.read_bytes())
    register("mine", folder)
    found = discovered()
    states = {name: (record["where"], record["state"]) for name, record in found.items()}
    assert states == {
        "mine": ("registered", "runs"),
        "a/runs": ("Hugging Face's cache", "runs"),
        "a/pinned@c0ffee0": ("Hugging Face's cache", "runs"),
        "a/half": ("Hugging Face's cache", "incomplete"),
        "a/other": ("Hugging Face's cache", "refused"),
        "b/gguf": ("LM Studio", "convert first"),
        "tiny:7b": ("Ollama", "convert first"),
    }
    assert found["a/half"]["why"] == "model.safetensors is missing"
    assert "qwen3" in found["a/other"]["why"]
    families = ("a/runs", "tiny:7b", "a/other", "a/half")
    assert [found[name]["family"] for name in families] == ["mistral", "llama", "qwen3", "mistral"]
    assert found["a/runs"]["bytes"] == json.loads(run("models", "--json").stdout)[0]["weight_bytes"]
    table = invoke("models", "--discover").stdout.splitlines()
    assert table[0].split() == ["NAME", "WHERE", "SIZE", "FAMILY", "STATE"]
    assert any(row.startswith("a/half") and row.endswith("incomplete: model.safetensors is missing") for row in table)


def test_a_registered_model_of_another_program_is_listed_once_and_marked(folder, disk):
    register("mine", hub_snapshot(disk / ".cache/huggingface/hub", "a/tiny", folder))
    assert [(name, record["registered"]) for name, record in discovered().items()] == [("a/tiny", "mine")]
    assert "Hugging Face's cache, registered as mine" in invoke("models", "--discover").stdout


def test_a_broken_entry_breaks_no_list(folder, disk, tmp_path):
    hub, models = disk / ".cache/huggingface/hub", disk / ".ollama/models"
    register("gone", tmp_path / "gone")
    (hub_snapshot(hub, "a/ref", folder).parents[1] / "refs" / "main").write_text("../..\x1b[2J")
    (hub_snapshot(hub, "a/index", folder) / "model.safetensors.index.json").write_text("{")
    (hub_snapshot(hub, "a/header", folder) / "model.safetensors").unlink()
    (hub / "models--a--header" / "snapshots" / COMMIT / "model.safetensors").write_bytes(b"\0" * 9)
    (hub / "models--a--file").write_text("")
    (hub / "models--x").mkdir()
    (hub / "models--a--loop").symlink_to("models--a--loop")
    for name, text in (("json", "{"), ("digest", json.dumps(ollama_manifest("sha256:../x")))):
        ollama_model(models, f"registry.ollama.ai/library/{name}/latest", b"GGUF").write_text(text)
    ollama_model(models, "registry.ollama.ai/library/cut/latest", b"GGUF")
    (models / "manifests" / "stray").write_text("x")
    found = discovered()
    states = {name: record["state"] for name, record in found.items()}
    refused = ("a/ref", "a/index", "a/header", "json:latest", "digest:latest", "cut:latest", "gone")
    assert states == dict.fromkeys(refused, "refused")
    assert "\x1b" not in invoke("models", "--discover").stdout


def test_without_any_model_it_is_said_where_was_looked(disk):
    result = run("models", "--discover")
    assert (result.returncode, result.stdout) == (0, b"")
    assert "looked for in: registered names" in one_line(result.stderr)
    assert run("models", "--discover", "--json").stdout == b"[]\n"


def test_listing_writes_nothing(folder, disk):
    hub_snapshot(disk / ".cache/huggingface/hub", "a/tiny", folder)
    before = {path: path.lstat().st_mtime_ns for path in disk.rglob("*")}
    discovered()
    assert {path: path.lstat().st_mtime_ns for path in disk.rglob("*")} == before


def test_folders_without_a_name_and_unfinished_downloads_are_listed(folder, home):
    shutil.copytree(folder, home / "models" / "left")
    (home / "models" / ".a--b.partial").mkdir()
    (home / "models" / ".a--b.partial" / "model.safetensors.part").write_bytes(bytes(2_000_000))
    register("named", shutil.copytree(folder, home / "models" / "named"))
    states = {Path(name).name: (r["where"], r["state"], r["why"], r["bytes"]) for name, r in discovered().items()}
    assert states[".a--b.partial"] == ("no name", "incomplete", "pull was interrupted", 2_000_000)
    assert states["left"][:3] == ("no name", "runs", None) and states["named"][0] == "registered"

"""Models that other programs keep on the disk are found by name, and nothing there is trusted."""

import json
import os
import shutil

import pytest
from helpers.cli import GREEDY, one_line, run
from helpers.other_programs import COMMIT, hub_snapshot, ollama_blob, ollama_manifest, ollama_model, studio_model
from helpers.plain_gguf import plain

from mistral_mlx.cli.models import found
from mistral_mlx.cli.models.ollama import parse_name
from mistral_mlx.cli.models.registry import located, register, resolve
from mistral_mlx.cli.models.small_file import small_text
from mistral_mlx.errors import ModelError

NAME = "mistralai/Tiny-v0.1"
OTHER = "1" + COMMIT[1:]


pytestmark = pytest.mark.usefixtures("disk")


@pytest.fixture(scope="module")
def gguf(tmp_path_factory):
    return plain(tmp_path_factory.mktemp("gguf") / "tiny.gguf")


def refusal(name, find=resolve):
    with pytest.raises(ModelError) as refused:
        find(name)
    message = str(refused.value)
    assert "\n" not in message and "\x1b" not in message
    return message


def test_a_name_of_the_hub_runs_from_the_cache_without_network(folder, cache):
    hub_snapshot(cache, NAME, folder)
    answer = run("complete", "-q", "-m", NAME, *GREEDY, "Hello")
    assert (answer.returncode, answer.stdout) == (0, run("complete", "-q", "-m", folder, *GREEDY, "Hello").stdout)
    drafted = run("complete", "-q", "-m", folder, "--draft-model", NAME, *GREEDY, "Hello")
    assert (drafted.returncode, drafted.stdout) == (0, answer.stdout)
    assert json.loads(run("info", NAME, "--json").stdout)["path"] == str(
        cache / "models--mistralai--Tiny-v0.1" / "snapshots" / COMMIT
    )


def test_registered_names_come_first_then_paths_then_other_programs(folder, cache, tmp_path, disk):
    snapshot = hub_snapshot(cache, NAME, folder)
    studio_model(disk / ".lmstudio", NAME, *folder.iterdir())
    assert resolve(NAME) == snapshot
    (tmp_path / NAME).mkdir(parents=True)
    assert resolve(NAME) == (tmp_path / NAME).relative_to(tmp_path)
    register(NAME, folder)
    assert resolve(NAME) == folder
    assert resolve(f"./{NAME}").samefile(tmp_path / NAME)


@pytest.mark.parametrize(
    ("asked", "found"),
    [("", COMMIT), ("@main", COMMIT), ("@refs/pr/1", OTHER), (f"@{OTHER}", OTHER), (f"@{OTHER[:7]}", OTHER)],
)
def test_a_revision_is_a_branch_a_commit_or_its_beginning(folder, cache, asked, found):
    hub_snapshot(cache, NAME, folder)
    hub_snapshot(cache, NAME, folder, commit=OTHER, ref="refs/pr/1")
    assert resolve(NAME + asked).name == found


def test_a_revision_that_is_not_there_or_not_one_is_said(folder, cache):
    hub_snapshot(cache, NAME, folder, ref=None)
    assert f"does not have the revision main of {NAME}; it has {NAME}@c0ffee0" in refusal(NAME)
    assert "does not have the revision v9" in refusal(f"{NAME}@v9")
    assert "does not have the revision c0ffee" in refusal(f"{NAME}@c0ffee")  # too short
    hub_snapshot(cache, NAME, folder, commit=COMMIT[:-1] + "1", ref=None)
    assert "has 2 commits that begin with c0ffee0" in refusal(f"{NAME}@c0ffee0")


def test_an_incomplete_snapshot_names_the_first_file_that_is_missing(folder, cache):
    snapshot = hub_snapshot(cache, NAME, folder)
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (snapshot / "model.safetensors.index.json").write_text(json.dumps(index))
    (snapshot / "model.safetensors").rename(snapshot / "model-1.safetensors")
    said = refusal(NAME)
    assert f"{NAME} in Hugging Face's cache is not complete: model-2.safetensors is missing from {snapshot}" in said
    assert f"'mistral-mlx pull {NAME}' fetches it" in said
    (snapshot / "model-2.safetensors").symlink_to("../../blobs/gone")  # as an interrupted download leaves it
    assert "model-2.safetensors is missing" in refusal(NAME)
    shutil.rmtree(snapshot)  # as after a call that only asked for the newest commit
    assert "the whole snapshot is missing" in refusal(NAME)


def test_what_is_whole_elsewhere_is_taken_instead_of_an_incomplete_snapshot(folder, cache, disk):
    (hub_snapshot(cache, NAME, folder) / "config.json").unlink()
    whole = studio_model(disk / ".lmstudio", NAME, *folder.iterdir())
    assert resolve(NAME) == whole


def test_mistrals_own_layout_is_found_and_named_for_conversion(folder, cache):
    snapshot = hub_snapshot(cache, NAME, folder)
    (snapshot / "config.json").unlink()
    (snapshot / "model.safetensors").rename(snapshot / "consolidated.safetensors")
    (snapshot / "params.json").write_text("{}")
    said = refusal(NAME)
    assert f"in Mistral's own layout; convert it first: mistral-mlx convert {NAME} Tiny-v0.1-mlx" in said
    assert located(NAME) == snapshot


HOSTILE_REFS = ["../../../../elsewhere", "..", "c0ffee", "\x1b[2J", COMMIT + "/..", "f" * 200, ""]


@pytest.mark.parametrize("text", HOSTILE_REFS)
def test_a_ref_that_is_no_commit_is_refused(folder, cache, text):
    hub_snapshot(cache, NAME, folder)
    ref = cache / "models--mistralai--Tiny-v0.1" / "refs" / "main"
    ref.write_text(text)
    said = refusal(NAME)
    assert "which is no commit" in said or "more than 100 bytes" in said


def test_a_ref_that_is_a_fifo_or_a_link_is_refused(folder, cache, tmp_path):
    hub_snapshot(cache, NAME, folder)
    ref = cache / "models--mistralai--Tiny-v0.1" / "refs" / "main"
    ref.unlink()
    os.mkfifo(ref)
    assert "not a regular file" in refusal(NAME)
    ref.unlink()
    (tmp_path / "commit").write_text(COMMIT)
    ref.symlink_to(tmp_path / "commit")
    assert "is reached by a link, which is not followed" in refusal(NAME)


@pytest.mark.parametrize("part", ["", "snapshots", f"snapshots/{COMMIT}"])
def test_a_folder_that_is_a_link_out_of_the_cache_is_refused(folder, cache, tmp_path, part):
    hub_snapshot(cache, NAME, folder)
    place = cache / "models--mistralai--Tiny-v0.1" / part
    place.rename(tmp_path / "outside")
    place.symlink_to(tmp_path / "outside")
    assert "is reached by a link, which is not followed; give the path of the folder itself" in refusal(NAME)


def test_a_file_that_is_a_link_out_of_the_cache_is_refused(folder, cache):
    snapshot = hub_snapshot(cache, NAME, folder)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to(folder / "config.json")
    result = run("complete", "-q", "-m", NAME, "x")
    assert (result.returncode, "config.json is a link out of" in one_line(result.stderr)) == (3, True)


def test_an_index_that_is_no_json_is_refused_in_one_line(folder, cache):
    snapshot = hub_snapshot(cache, NAME, folder)
    (snapshot / "model.safetensors.index.json").write_text("[" * 100)
    assert "model.safetensors.index.json is not valid JSON" in refusal(NAME)


def test_a_snapshot_as_huggingface_hub_lays_it_out_runs(folder, cache, monkeypatch):
    """Its weights are a link to a link to a blob that all models of the cache share."""
    file_download = pytest.importorskip("huggingface_hub.file_download")
    shared_blobs = pytest.importorskip("huggingface_hub.utils._shared_blobs")
    repository = cache / file_download.repo_folder_name(repo_id=NAME, repo_type="model")
    shared = shared_blobs.shared_blob_path(cache, "ab" + "0" * 62)
    for made in (shared.parent, repository / "blobs", repository / "snapshots" / COMMIT):
        made.mkdir(parents=True)
    (cache / "blobs" / shared_blobs.SHARED_BLOBS_MARKER_NAME).write_text(
        f"{shared_blobs.SHARED_BLOBS_LAYOUT_VERSION}\n"
    )
    for file in folder.iterdir():
        blob = repository / "blobs" / file.name
        if file.name == "model.safetensors":
            shutil.copy(file, shared)
            file_download._create_symlink(str(shared), str(blob))
        else:
            shutil.copy(file, blob)
        pointer = file_download._get_pointer_path(str(repository), COMMIT, file.name)
        file_download._create_symlink(str(blob), pointer)
    file_download._cache_commit_hash_for_specific_revision(str(repository), "main", COMMIT)
    assert (repository / "blobs" / "model.safetensors").is_symlink()
    assert run("complete", "-q", "-m", NAME, *GREEDY, "Hello").returncode == 0


@pytest.mark.parametrize("home", [".lmstudio", ".cache/lm-studio", "elsewhere"])
def test_lm_studios_folders_are_looked_into(folder, disk, home):
    if home == "elsewhere":
        (disk / ".lmstudio-home-pointer").write_text(f"{disk / home}\n")
    model = studio_model(disk / home, NAME, *folder.iterdir())
    assert resolve(NAME) == model


def test_lm_studios_own_choice_of_a_folder_is_obeyed(folder, disk, tmp_path):
    model = studio_model(tmp_path / "big", NAME, *folder.iterdir())
    (disk / ".lmstudio").mkdir()
    for text in ("{", "[]", '{"downloadsFolder": 1}', '{"downloadsFolder": "big/models"}'):
        (disk / ".lmstudio" / "settings.json").write_text(text)
        assert "is not on this disk" in refusal(NAME)
    (disk / ".lmstudio" / "settings.json").write_text(json.dumps({"downloadsFolder": str(tmp_path / "big" / "models")}))
    assert resolve(NAME) == model


def test_a_gguf_file_of_lm_studio_is_converted_by_its_name(gguf, disk, tmp_path):
    model = studio_model(disk / ".lmstudio", NAME, gguf)
    said = refusal(NAME)
    assert f"{NAME} is in LM Studio ({model}), as a GGUF file" in said
    assert said.endswith(f"convert it first: mistral-mlx convert {NAME} Tiny-v0.1-mlx")
    result = run("convert", NAME, "-q", cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, b"")
    assert (tmp_path / "Tiny-v0.1-mlx" / "config.json").is_file()


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("mistral", "mistral:latest"),
        ("mistral:7b", "mistral:7b"),
        ("me/mistral:7b", "me/mistral:7b"),
        ("hf.co/a/b-GGUF:Q4_K_M", "hf.co/a/b-GGUF:Q4_K_M"),
        ("registry.ollama.ai/library/mistral", "mistral:latest"),
        ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
    ],
)
def test_ollamas_names_are_read_as_ollama_writes_them(text, shown):
    assert str(parse_name(text)) == shown


@pytest.mark.parametrize("text", ["", ":7b", "a:", "../a", "a/../b", "a/b/c/d", "a b", "-a", "a:b:c", "é", "a/b@main"])
def test_what_is_no_name_of_ollama_is_none(text):
    assert parse_name(text) is None


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("tiny", "registry.ollama.ai/library/tiny/latest"),
        ("tiny:7b", "registry.ollama.ai/library/tiny/7b"),
        ("me/tiny:7b", "registry.ollama.ai/me/tiny/7b"),
        ("hf.co/a/b-GGUF:Q4_K_M", "hf.co/a/b-GGUF/Q4_K_M"),
    ],
)
def test_a_model_of_ollama_is_converted_by_its_name(gguf, models, name, path):
    ollama_model(models, path, gguf.read_bytes())
    said = refusal(name)
    assert f"{name} is in Ollama" in said and f"mistral-mlx convert {name} " in said
    assert located(name).read_bytes() == gguf.read_bytes()
    result = run("convert", name, "-q")
    assert result.returncode == 0, result.stderr


def test_ollamas_folder_may_be_elsewhere(gguf, tmp_path, monkeypatch):
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "big"))
    ollama_model(tmp_path / "big", "registry.ollama.ai/library/tiny/latest", gguf.read_bytes())
    assert located("tiny").is_file()


def named_by_link(models, text):
    """Put a manifest into a blob and let a name be a link to it, as newer versions of Ollama do."""
    digest = ollama_blob(models, json.dumps(text).encode()).removeprefix("sha256:")
    link = models / "manifests-v2" / "ollama.com" / "library" / "tiny" / "latest"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(f"../../../../blobs/sha256-{digest}")
    return link


def test_a_manifest_may_be_a_link_to_a_blob_and_list_several_engines(gguf, models):
    digest = ollama_blob(models, gguf.read_bytes())
    tensors = ollama_manifest("sha256:" + "1" * 64, "application/vnd.ollama.image.tensor")
    named_by_link(models, {"manifests": [tensors, ollama_manifest(digest)]})
    assert located("tiny").read_bytes() == gguf.read_bytes()
    child = ollama_blob(models, json.dumps(ollama_manifest(digest)).encode())
    link = models / "manifests-v2" / "ollama.com" / "library" / "tiny" / "latest"
    link.unlink()
    named_by_link(models, {"manifests": [tensors, {"digest": child, "runner": "llamacpp"}]})
    assert located("tiny").read_bytes() == gguf.read_bytes()
    link.unlink()
    named_by_link(models, {"manifests": [tensors]})
    assert "tensors of its own engine, not a GGUF file" in refusal("tiny", located)


@pytest.mark.parametrize(
    ("digest", "said"),
    [
        ("sha256:../../../../etc/passwd", "which is no digest"),
        ("sha256:" + "a" * 63, "which is no digest"),
        ("sha256:" + "g" * 64, "which is no digest"),
        ("sha256-" + "a" * 64 + "/..", "which is no digest"),
        ("sha256:" + "a" * 64, "is missing; 'ollama pull' fetches it"),
        (7, "which is no digest"),
    ],
)
def test_a_digest_that_names_no_blob_is_refused(models, digest, said):
    manifest = models / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(json.dumps(ollama_manifest(digest)))
    assert said in refusal("tiny", located)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"layers": 1}', '{"layers": [1]}', '{"manifests": [1, {"digest": "x"}]}', "9" * (1 << 21)]
)
def test_a_damaged_manifest_is_one_line(models, text):
    manifest = models / "manifests" / "registry.ollama.ai" / "library" / "tiny" / "latest"
    manifest.parent.mkdir(parents=True)
    manifest.write_text(text)
    refusal("tiny", located)


def test_links_out_of_ollamas_folder_are_refused(gguf, models, tmp_path):
    manifest = ollama_model(models, "registry.ollama.ai/library/tiny/latest", gguf.read_bytes())
    blob = located("tiny")
    blob.unlink()
    blob.symlink_to(gguf)
    assert "is reached by a link" in refusal("tiny", located)
    manifest.rename(tmp_path / blob.name)
    manifest.symlink_to(tmp_path / blob.name)
    assert "is a link out of Ollama's blobs" in refusal("tiny", located)


def test_a_name_that_is_nowhere_says_where_was_looked_and_how_to_fetch_it(cache):
    assert refusal(f"{NAME}@v1") == (
        f"{NAME}@v1 is not on this disk (looked for in: registered names, this folder, Hugging Face's cache {cache}, "
        f"LM Studio, Ollama); 'mistral-mlx pull {NAME}@v1' fetches it"
    )
    assert refusal("hf.co/a/b:Q4").startswith("hf.co/a/b:Q4 is not on this disk (looked for in: ")
    assert refusal("./a/b") == "no such model directory: ./a/b"
    assert refusal("~/nothing") == "no such model directory: ~/nothing"


def test_convert_names_a_missing_source_before_a_missing_target(tmp_path):
    """It used to say that the parent of a target does not exist, which nobody had named."""
    for source in (NAME, "./no/model", "no.gguf"):
        result = run("convert", source, tmp_path / "no" / "target")
        assert result.returncode == 3
        assert source in one_line(result.stderr) and "target" not in one_line(result.stderr)
    assert run("convert", NAME).returncode == 3


def test_names_and_paths_look_into_no_other_program(folder, monkeypatch):
    register("tiny", folder)
    monkeypatch.setattr(found, "find", lambda name: pytest.fail("looked"))
    monkeypatch.setattr(found, "to_run", lambda name: pytest.fail("looked"))
    assert resolve("tiny") == resolve(str(folder)) == folder


def test_a_gguf_file_that_is_registered_is_named_for_conversion(gguf, tmp_path):
    (tmp_path / "pulled").mkdir()
    shutil.copy(gguf, tmp_path / "pulled" / "a.gguf")
    register("org/tiny", tmp_path / "pulled")
    assert refusal("org/tiny").endswith("convert a GGUF file first: mistral-mlx convert org/tiny")
    assert located("org/tiny") == tmp_path / "pulled"


def test_another_revision_of_a_registered_model_is_not_taken_for_it(folder):
    register(NAME, folder)
    said = refusal(f"{NAME}@v1")
    assert f"but {NAME} is registered, at a commit of its own" in said
    assert said.endswith(f"mistral-mlx pull {NAME}@v1 NAME")


def test_a_path_needs_no_registry(folder, home):
    (home / "models.json").write_text("[")
    assert resolve(str(folder)) == folder
    assert "models.json cannot be read" in refusal("tiny")


def test_a_small_file_is_read_whole_and_nothing_else_is(tmp_path):
    file = tmp_path / "file"
    assert small_text(file) is None and small_text(file / "below") is None
    file.write_text("12345")
    assert small_text(file, 5) == "12345"
    (tmp_path / "link").symlink_to(file)
    (tmp_path / "bytes").write_bytes(b"\xff")
    os.mkfifo(tmp_path / "fifo")
    for name, limit, said in (
        ("file", 4, "more than 4 bytes"),
        ("link", 5, "cannot be read"),
        ("bytes", 5, "not UTF-8"),
        ("fifo", 5, "not a regular file"),
        ("", 5, "not a regular file"),
    ):
        with pytest.raises(ModelError, match=said):
            small_text(tmp_path / name, limit)

"""``pull ORG/REPO`` from a hub on this machine: what is fetched, kept, refused and said."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.convert_sources import write_native
from helpers.invoke import invoke
from helpers.other_programs import hub_snapshot
from helpers.plain_gguf import plain

from mistral_mlx.cli.models.registry import registered
from mistral_mlx.errors import ConversionError, ModelError, OptionError

NAME = "org/tiny"
BIG = "model.safetensors"
CODE = {"modeling.py": b"import os", "pytorch_model.bin": b"pickle", "consolidated.safetensors": bytes(30_000)}


def folder_of(name=NAME):
    return registered()[name]


def partial(home):
    return home / "home/models/.org--tiny.partial"


def test_a_model_is_fetched_and_registered(hub, hub_files):
    hub.models[NAME] |= CODE
    result = invoke("pull", NAME)
    found = {path.name: path.read_bytes() for path in folder_of().iterdir()}
    record = json.loads(found.pop("pulled.json"))
    assert found == hub_files  # neither code, nor pickles, nor the weights in a second layout
    assert (record["repository"], record["commit"]) == (NAME, hub.commit(NAME))
    assert "licence apache-2.0" in result.stderr and "runs as it is" in result.stderr
    assert f"{NAME} is ready" in result.stderr and f"try it: mistral-mlx chat -m {NAME}" in result.stderr
    assert invoke("info", str(folder_of())).exit_code == 0


def test_a_name_and_a_revision_can_be_given(hub):
    commit = hub.commit(NAME)
    invoke("pull", f"{NAME}@{commit}")
    invoke("pull", NAME, "other", "--revision", "main")
    assert {f"{NAME}@{commit}", "other"} <= set(registered())
    assert invoke("info", f"{NAME}@{commit}").exit_code == 0
    assert any(f"/revision/{commit}" in asked.path for asked in hub.asked)


def test_the_address_of_a_page_is_a_name_too(hub):
    invoke("pull", f"{hub.address}/{NAME}/tree/main")
    assert NAME in registered()


def test_a_second_pull_fetches_nothing(hub):
    invoke("pull", NAME)
    hub.asked.clear()
    assert "is up to date" in invoke("pull", NAME).stderr
    assert not any("resolve" in asked.path for asked in hub.asked)


def test_a_file_that_was_lost_is_fetched_again(hub, hub_files):
    invoke("pull", NAME)
    (folder_of() / BIG).unlink()
    hub.asked.clear()
    assert "is ready" in invoke("pull", NAME).stderr
    assert [asked.path.split("/")[-1] for asked in hub.asked if "resolve" in asked.path] == [BIG]
    assert (folder_of() / BIG).read_bytes() == hub_files[BIG]


def test_a_new_commit_fetches_what_has_changed(hub):
    invoke("pull", NAME)
    hub.asked.clear()
    hub.models[NAME]["README.md"] = b"# new"
    invoke("pull", NAME)
    assert [asked.path.split("/")[-1] for asked in hub.asked if "resolve" in asked.path] == ["README.md"]
    assert (folder_of() / "README.md").read_bytes() == b"# new"
    assert not list(folder_of().parent.glob(".*"))


def test_a_dry_run_leaves_nothing(hub, tmp_path):
    result = invoke("pull", NAME, "--dry-run")
    assert f"{len(hub.models[NAME][BIG]):,}  {BIG}" in result.stderr
    outlook = json.loads(invoke("pull", NAME, "--dry-run", "--json").stdout)
    assert (outlook["verdict"], outlook["nbytes"]) == ("runs", sum(map(len, hub.models[NAME].values())))
    assert outlook["memory_needed"] > outlook["files"][BIG]
    assert registered() == {} and not (tmp_path / "home").exists()


def test_the_page_names_every_key_of_the_json(hub):
    page = (Path(__file__).parents[2] / "docs" / "cli.md").read_text("utf-8")
    for arguments in (("--dry-run",), ()):
        keys = json.loads(invoke("pull", NAME, "--json", *arguments).stdout)
        assert [key for key in keys if f"`{key}`" not in page] == []


def test_a_model_that_has_few_bits_already_is_not_to_be_made_smaller(hub):
    assert json.loads(invoke("pull", NAME, "--dry-run", "--json").stdout)["memory_at_4_bits"] is not None
    config = json.loads(hub.models[NAME]["config.json"]) | {"quantization": {"bits": 4, "group_size": 64}}
    hub.models[NAME]["config.json"] = json.dumps(config).encode()
    outlook = json.loads(invoke("pull", NAME, "--dry-run", "--json").stdout)
    assert (outlook["verdict"], outlook["memory_at_4_bits"]) == ("runs", None)


def test_an_unsupported_model_is_refused_before_its_weights(hub, tmp_path):
    config = json.loads(hub.models[NAME]["config.json"]) | {"model_type": "mamba"}
    hub.models[NAME]["config.json"] = json.dumps(config).encode()
    with pytest.raises(ModelError, match=r"org/tiny is not supported, and nothing more is fetched: .*mamba"):
        invoke("pull", NAME)
    assert not any(BIG in asked.path for asked in hub.asked)
    assert not partial(tmp_path).exists() and registered() == {}


def test_a_model_in_mistrals_own_layout_is_to_be_converted(hub, tmp_path):
    write_native(tmp_path / "native")
    hub.models[NAME] = {path.name: path.read_bytes() for path in (tmp_path / "native").iterdir()}
    said = invoke("pull", NAME).stderr
    assert "has to be converted first: it is in Mistral's own layout" in said
    assert f"convert it: mistral-mlx convert {NAME} tiny-mlx --bits 4" in said


def test_the_shards_are_those_of_the_index(hub):
    weights = hub.models[NAME].pop(BIG)
    shard = "model-00001-of-00001.safetensors"
    index = {"weight_map": {"model.embed_tokens.weight": shard}}
    hub.models[NAME] |= {shard: weights, "model-other.safetensors": weights}
    hub.models[NAME]["model.safetensors.index.json"] = json.dumps(index).encode()
    invoke("pull", NAME)
    assert [path.name for path in folder_of().glob("*.safetensors")] == [shard]
    del hub.models[NAME][shard]
    with pytest.raises(ConversionError, match=f"the index names 1 file of weights, and {shard} is not on the hub"):
        invoke("pull", NAME)


def test_gguf_files_are_chosen_by_name(hub, tmp_path):
    data = plain(tmp_path / "a.gguf").read_bytes()
    hub.models[NAME] = {"a.Q4_K_M.gguf": data, "a.Q8_0.gguf": data}
    with pytest.raises(ConversionError, match=r"has 2 GGUF files and no safetensors; choose one with --include, such"):
        invoke("pull", NAME)
    said = invoke("pull", NAME, "--include", "*Q4_K_M*").stderr
    assert [path.name for path in folder_of().glob("*.gguf")] == ["a.Q4_K_M.gguf"]
    assert f"mistral-mlx convert {NAME} tiny-mlx\n" in said


def test_pickles_alone_are_refused(hub):
    del hub.models[NAME][BIG]
    hub.models[NAME]["pytorch_model.bin"] = bytes(30_000)
    with pytest.raises(ConversionError, match=r"pytorch_model.bin is a pickle, which can run code and is never read"):
        invoke("pull", NAME)
    with pytest.raises(ConversionError, match=r"--include and --exclude leave no file of weights"):
        invoke("pull", NAME, "--include", "*.bin")


def test_excluded_files_stay_behind(hub):
    invoke("pull", NAME, "--exclude", "README*", "--exclude", "tokenizer_config.json")
    assert not (folder_of() / "README.md").exists() and (folder_of() / BIG).exists()


def test_huggingface_hub_fetches_the_same_from_this_hub(hub, tmp_path):
    """So the hub of these tests is like the real one."""
    invoke("pull", NAME)
    program = "import huggingface_hub; print(huggingface_hub.snapshot_download('org/tiny'))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    theirs = {path.name: path.read_bytes() for path in Path(done.stdout.strip()).iterdir()}
    assert theirs == {path.name: path.read_bytes() for path in folder_of().iterdir() if path.name != "pulled.json"}


def test_a_model_of_hugging_faces_cache_is_not_fetched_again(hub, tmp_path, monkeypatch):
    folder = tmp_path / "files"
    folder.mkdir()
    for name, data in hub.models[NAME].items():
        (folder / name).write_bytes(data)
    snapshot = hub_snapshot(tmp_path / "hf/hub", NAME, folder, commit=hub.commit(NAME))
    said = invoke("pull", NAME).stderr
    assert f"{NAME} is ready; it uses the files of Hugging Face's cache: {snapshot}" in said and folder_of() == snapshot
    assert not any("resolve" in asked.path for asked in hub.asked)
    hub.asked.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    invoke("pull", NAME, "other")
    assert folder_of("other") == snapshot and hub.asked == []
    monkeypatch.delenv("HF_HUB_OFFLINE")
    hub.models[NAME]["README.md"] = b"# a newer commit"
    invoke("pull", NAME)
    assert (folder_of() / "README.md").read_bytes() == b"# a newer commit" and folder_of() != snapshot


def test_the_folder_of_another_model_is_not_taken(hub):
    hub.models["org/b"] = hub.models[NAME] | {"README.md": b"# b"}
    invoke("pull", NAME, "mine")
    invoke("models", "rename", "mine", "keep")
    with pytest.raises(OptionError, match=r"models/mine is the folder of keep; give another name"):
        invoke("pull", "org/b", "mine")
    with pytest.raises(OptionError, match="the name org--b has '--' in it"):
        invoke("pull", NAME, "org--b")
    invoke("models", "remove", "keep")
    with pytest.raises(OptionError, match=r"models/mine holds something else; give another name"):
        invoke("pull", "org/b", "mine")
    invoke("pull", NAME, "mine")
    assert (folder_of("mine") / "README.md").read_bytes() == b"# tiny"


def test_a_renamed_model_is_brought_up_to_date_in_its_place(hub):
    invoke("pull", NAME, "mine")
    place = folder_of("mine")
    invoke("models", "rename", "mine", "keep")
    hub.models[NAME]["README.md"] = b"# new"
    hub.asked.clear()
    invoke("pull", NAME, "keep")
    assert folder_of("keep") == place and (place / "README.md").read_bytes() == b"# new"
    assert not any(BIG in asked.path for asked in hub.asked)


def test_other_files_of_the_commit_and_those_of_the_user_stay(hub, tmp_path):
    data = plain(tmp_path / "a.gguf").read_bytes()
    hub.models[NAME] = {"a.Q4.gguf": data, "a.Q8.gguf": data}
    invoke("pull", NAME, "--include", "*Q4*")
    (folder_of() / "notes.txt").write_text("mine")
    invoke("pull", NAME, "--include", "*Q8*")
    assert {path.name for path in folder_of().iterdir()} == {"a.Q4.gguf", "a.Q8.gguf", "notes.txt", "pulled.json"}
    hub.models[NAME]["a.Q8.gguf"] = plain(tmp_path / "b.gguf").read_bytes() + bytes(32)
    invoke("pull", NAME, "--include", "*Q8*")
    assert {path.name for path in folder_of().iterdir()} == {"a.Q8.gguf", "notes.txt", "pulled.json"}


def test_a_snapshot_without_a_tokenizer_is_not_whole(hub, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    for name in ("config.json", BIG):
        (folder / name).write_bytes(hub.models[NAME][name])
    hub_snapshot(tmp_path / "hf/hub", NAME, folder, commit=hub.commit(NAME))
    assert "is ready" in invoke("pull", NAME).stderr and (folder_of() / "tokenizer.model").exists()


def test_a_dry_run_counts_what_is_here(hub):
    invoke("pull", NAME)
    outlook = json.loads(invoke("pull", NAME, "--dry-run", "--json").stdout)
    assert outlook["nbytes_here"] == outlook["nbytes"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["mistral"], r"mistral is no name of a model on a hub; give ORG/REPO, such as .* or demo"),
        (["./a/b"], r"\./a/b is no name of a model"),
        (["a/b@x", "--revision", "y"], r"--revision is y; it must be one"),
        (["a/b", "--revision", "../y"], r"--revision is \.\./y"),
        (["a/b", "../name"], r"\.\./name cannot be a model's name"),
        (["a/b", "--include", "sub/x"], r"--include is sub/x; it must be a file name"),
        (["demo", "name"], r"pull demo takes no other argument"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(hub, arguments, said):
    with pytest.raises(OptionError, match=said):
        invoke("pull", *arguments)
    assert hub.asked == []


def test_what_has_the_name_already_is_not_replaced(hub, tmp_path):
    (tmp_path / "home/models/mine").mkdir(parents=True)
    (tmp_path / "home/models/mine/thesis.txt").write_text("my only copy")
    with pytest.raises(OptionError, match="holds something else; give another name"):
        invoke("pull", NAME, "mine")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home/models.json").write_text(json.dumps({"a": str(tmp_path / "elsewhere")}))
    with pytest.raises(OptionError, match=r"a is the name of .*elsewhere; take another one"):
        invoke("pull", NAME, "a")

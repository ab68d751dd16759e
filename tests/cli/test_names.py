"""What models may be called, and what is made of their names."""

import json

import pytest
from helpers.cli import run
from helpers.other_programs import hub_snapshot

from mistral_mlx.cli.models.names import MAX_NAME, check_name, file_name, is_path
from mistral_mlx.errors import OptionError

pytestmark = pytest.mark.usefixtures("disk")


@pytest.mark.parametrize("name", ["a", "mistral", "7b-v0.3", "é", "ns:7b", "org/repo", "org/repo@v1", "a" * 200])
def test_what_a_model_may_be_called(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        "-m",
        ".a",
        "~a",
        "/a",
        "a/",
        "a/b/c",
        "a/../b",
        " a",
        "a ",
        "a b",
        "a\n",
        "\x1b[2J",
        "a" * (MAX_NAME + 1),
        "a/-b",
    ],
)
def test_what_a_model_cannot_be_called(name):
    with pytest.raises(OptionError, match="cannot be a model's name"):
        check_name(name)


def test_a_path_is_told_from_a_name_and_a_name_becomes_a_file_name():
    assert all(map(is_path, ["/a", "./a", "../a", ".", "~/a", ".a"]))
    assert not any(map(is_path, ["a", "a/b", "a.b"]))
    names = ["demo", "org/Repo-v0.1", "org/Repo@v1", "mistral:7b", "hf.co/a/b-GGUF:Q4_K_M"]
    assert list(map(file_name, names)) == ["demo", "Repo-v0.1", "Repo", "mistral-7b", "b-GGUF-Q4_K_M"]


def test_the_target_of_a_name_is_in_the_current_folder(folder, disk, tmp_path):
    hub_snapshot(disk / ".cache/huggingface/hub", "a/tiny", folder)
    for options, target in (([], "tiny-mlx"), (["--bits", "8"], "tiny-8bit")):
        report = json.loads(run("convert", "a/tiny", *options, "--group-size", "32", "--dry-run", "--json").stdout)
        assert tmp_path / report["target"] == tmp_path / target

"""`models` and `tokens`: the registered models, and the tokens of a text."""

import json
import re

import pytest
from helpers.cli import run
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx.cli.models.registry import register
from mistral_mlx.cli.reports.tokens import describe
from mistral_mlx.prompt.encode import encode_chat
from mistral_mlx.tokenizer.choose import load_tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture
def models(folder, tmp_path):
    register("tiny", folder)
    register("gone", tmp_path / "gone\x1b[2J")


def test_models_lists_size_bits_window_and_path(models, folder):
    gone, tiny = json.loads(run("models", "--json").stdout)
    assert (tiny["name"], tiny["path"], tiny["window"], tiny["context"]) == ("tiny", str(folder), 8, 512)
    assert (tiny["bits"], tiny["bits_per_weight"], tiny["weight_bytes"]) == (None, 32.0, 4 * tiny["parameters"])
    assert gone.keys() == {"name", "path", "error", "state", "why", "weight_bytes"}
    header, lost, line = run("models").stdout.decode().splitlines()
    assert header.split() == ["NAME", "SIZE", "BITS", "WINDOW", "PATH"]
    assert line.split()[0] == "tiny" and line.split()[-2:] == ["8", str(folder)]
    assert "(refused: the folder is gone)" in lost and "\x1b" not in lost


def test_a_model_that_must_be_converted_is_called_so_in_both_lists(folder, tmp_path):
    """models used to call a folder of GGUF files unusable, and --discover `convert first`."""
    assert run("export", folder, tmp_path / "gguf.gguf", "-q").returncode == 0
    (tmp_path / "gguf").mkdir()
    (tmp_path / "gguf.gguf").rename(tmp_path / "gguf" / "model.gguf")
    register("packed", tmp_path / "gguf")
    assert f"{tmp_path / 'gguf'} (convert first)\n" in run("models").stdout.decode()
    assert re.search(r"^packed .* convert first$", run("models", "--discover").stdout.decode(), re.MULTILINE)


def test_without_models_it_is_said_how_to_get_one():
    result = run("models")
    assert (result.returncode, result.stdout) == (0, b"")
    assert b"pull demo" in result.stderr
    assert run("models", "--json").stdout == b"[]\n"


def test_names_that_cannot_be_resolved_get_the_advice_that_helps(models, tmp_path):
    """A path used to be answered with "registered: none", and `pull` to be advised for names that it cannot fetch."""
    assert b"registered" not in run("info", tmp_path / "nowhere").stderr
    assert b"(registered: gone, tiny)" in run("info", "nowhere").stderr
    gone = run("info", "gone").stderr
    assert b"is gone; name the new one: mistral-mlx models add gone DIR" in gone and b"pull" not in gone
    register("demo", tmp_path / "gone")
    assert b"fetch it again with 'mistral-mlx pull demo'" in run("info", "demo").stderr


def test_a_byte_order_mark_is_no_part_of_a_text(folder):
    """It used to be tokenized."""
    plain, marked = (run("tokens", "-m", folder, "--json", input=data) for data in (b"king\n", b"\xef\xbb\xbfking\n"))
    assert plain.stdout == marked.stdout != b""


def test_tokens_are_those_that_a_raw_completion_sends(folder):
    tokenizer = load_tokenizer(folder)
    facts = json.loads(run("tokens", "-m", folder, "--json", "the king [INST]", input=None).stdout)
    assert facts["ids"] == tokenizer.encode("the king [INST]", bos=True)
    assert facts["control"] == [True] + [False] * (len(facts["ids"]) - 1)
    assert (facts["count"], facts["pieces"][0]) == (len(facts["ids"]), "<s>")
    assert facts["prompt"] == "<s> the king [INST]"
    assert "".join(facts["pieces"]) == facts["prompt"]


def test_tokens_of_a_chat_are_the_prompt_that_is_sent(folder):
    tokenizer = load_tokenizer(folder)
    facts = json.loads(run("tokens", "-m", folder, "--chat", "--system", "a", "--json", input=b"the king\n").stdout)
    messages = [{"role": "system", "content": "a"}, {"role": "user", "content": "the king"}]
    assert facts["ids"] == encode_chat(tokenizer, messages)
    assert facts["prompt"] == "<s>[INST] a the king[/INST]"  # this vocabulary makes line feeds spaces


def test_tokens_as_a_table(folder):
    lines = run("tokens", "-m", folder, "--chat", "the\nking", input=None).stdout.decode().splitlines()
    assert lines[0].split() == ["1", '"<s>"', "control"]
    assert lines[-2].endswith("tokens, 3 control")
    assert lines[-1] == 'prompt: "<s>[INST] the king[/INST]"'


def test_a_character_of_several_tokens_is_whole_in_the_prompt(folder):
    tokenizer = load_tokenizer(folder)
    facts = describe(tokenizer, tokenizer.encode("é"))
    assert facts["prompt"] == " é"
    assert facts["pieces"][-2:] == ["<0xC3>", "<0xA9>"]  # they used to be two U+FFFD


def test_what_does_not_go_together_is_said(folder):
    for args in (["--system", "a", "x"], ["--template", "v1", "x"]):
        assert run("tokens", "-m", folder, *args).returncode == 2
    assert run("tokens", "-m", folder, input=b"\xff").returncode == 2
    assert run("tokens", "-m", folder, "--chat", "--template", "v9", "x").returncode == 2

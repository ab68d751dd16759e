"""Damaged tokenizer files are refused in one line, and reading one needs no mlx."""

import json
import os
import shutil
import subprocess
import sys

import pytest
from helpers.tokenizer_files import MISTRAL, byte_level_json, mistral_folder, write_json

from mistral_mlx import ModelError, TokenizerError, load_tokenizer


def test_a_folder_without_tokenizer_says_what_to_put_there(tmp_path):
    with pytest.raises(TokenizerError, match=r"has no tokenizer; put .*tokenizer\.model, tokenizer\.json or tekken"):
        load_tokenizer(tmp_path)


def damaged_models():
    whole = MISTRAL["v3"].read_bytes()
    yield from (b"", b"garbage" * 99, b"{}", bytes(999), b"\x0a\x05\x0a\x03abc", whole[:9999], whole[:-1], whole[7:])


def damaged_documents():
    whole = json.loads(byte_level_json())
    added = whole["added_tokens"]
    yield from ("", "{", "[]", "{}", "null", byte_level_json()[:5000], '{"model": {"type": "BPE"}}')
    yield json.dumps(whole | {"model": whole["model"] | {"merges": [["a", "nowhere"]]}})
    for merges in ([["a"]], [["a", "b", "c"]], ["a b", ["a", "b"]], ["ab"], [["a", 1]], [7], 7, None):
        yield json.dumps(whole | {"model": whole["model"] | {"merges": merges}})
    for wrong in (-1, True, 1.0, "1", None, 10**7):
        yield json.dumps(whole | {"model": whole["model"] | {"vocab": {"a": 0, "b": wrong}}})
    yield json.dumps(whole | {"model": {"type": "Unigram", "vocab": []}})
    yield json.dumps(whole | {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}})
    yield json.dumps(whole | {"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "((("}, "behavior": "Isolated"}})
    yield json.dumps(whole | {"model": whole["model"] | {"continuing_subword_prefix": "#" * 99}})
    slow = {"type": "Split", "pattern": {"Regex": "(a+)+$"}, "behavior": "Isolated", "invert": False}
    yield json.dumps(whole | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [slow]}})
    yield json.dumps(whole | {"added_tokens": [*added, {"id": 2**40, "content": "x"}]})
    yield json.dumps(whole | {"added_tokens": [{"id": True, "content": "x"}]})
    yield json.dumps(whole | {"added_tokens": {"a": 1}})
    yield json.dumps(whole | {"added_tokens": [7]})


def refusals(path, name, contents):
    """Return what was said to each damaged file; every message is one printable line."""
    messages = []
    for content in contents:
        (path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(TokenizerError) as caught:
            load_tokenizer(path)
        messages.append(str(caught.value))
        assert messages[-1].isprintable() and len(messages[-1]) < 400
    return messages


@pytest.mark.parametrize(
    ("name", "contents"), [("tokenizer.model", damaged_models), ("tokenizer.json", damaged_documents)]
)
def test_damaged_files_are_refused_in_one_line_and_in_silence(name, contents, tmp_path, capfd):
    messages = refusals(tmp_path, name, contents())
    assert all(name in message for message in messages)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "document"),
    [
        ("tokenizer_config.json", {"eos_token": "<|nowhere|>"}),
        ("tokenizer_config.json", {"bos_token": 7}),
        ("tokenizer_config.json", {"add_bos_token": "yes"}),
        ("tokenizer_config.json", {"chat_template": 7}),
        ("tokenizer_config.json", {"chat_template": "x" * 100_001}),
        ("tokenizer_config.json", {"added_tokens_decoder": {"x": {"content": "<a>"}}}),
        ("tokenizer_config.json", {"added_tokens_decoder": [1]}),
        ("tokenizer_config.json", [1]),
        ("added_tokens.json", {"<a>": -1}),
        ("added_tokens.json", {"<a>": 10**12}),
        ("special_tokens_map.json", {"eos_token": ["</s>"]}),
    ],
)
def test_impossible_settings_are_refused_in_one_line(name, document, tmp_path):
    write_json(mistral_folder(tmp_path, "v1"), name, document)
    with pytest.raises(TokenizerError) as caught:
        load_tokenizer(tmp_path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("name", ["tokenizer.model", "tokenizer.json", "tokenizer_config.json"])
def test_no_file_outside_the_folder_is_read(name, tmp_path):
    outside, folder = tmp_path / "outside", tmp_path / "model"
    folder.mkdir()
    shutil.copyfile(MISTRAL["v1"], folder / "tokenizer.model.v1")
    outside.write_text("{}")
    os.symlink(outside, folder / name)
    if name == "tokenizer.json":
        (folder / "tokenizer.model.v1").unlink()
    with pytest.raises(ModelError, match="link out of"):
        load_tokenizer(folder)


def test_a_tokenizer_needs_neither_mlx_nor_transformers(tmp_path):
    mistral_folder(tmp_path, "v3")
    code = (
        "import sys; from mistral_mlx.tokenizer.choose import load_tokenizer\n"
        "from mistral_mlx.prompt.encode import encode_chat\n"
        f"encode_chat(load_tokenizer({str(tmp_path)!r}), [{{'role': 'user', 'content': 'hi'}}])\n"
        "print({'mlx', 'mlx.core', 'transformers', 'torch', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


DEEPSEEK = (
    r"""[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"""
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def with_pattern(path, regex):
    step = {"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": False}
    document = json.loads(byte_level_json()) | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [step]}}
    return write_json(path, "tokenizer.json", document)


@pytest.mark.parametrize("regex", [DEEPSEEK, r"\)*|a", r"[)*]+", r"[^)]*", r"(?:a|b)", r"[\])*]"])
def test_a_parenthesis_in_a_class_repeats_no_group(regex, tmp_path):
    """The file of deepseek_v3 was refused."""
    tokenizer = load_tokenizer(with_pattern(tmp_path, regex))
    assert tokenizer.decode(tokenizer.encode("a)*b")) == "a)*b"


@pytest.mark.parametrize(
    "regex",
    [
        r"(a+)+", r"(a+)*$", r"(a+){2,}", r"(a+\\)+", r"[b](a+)+", r"[]b](a+)+", r"(?#[)(a+)+(?#])", r"(?x)(a+)+#]",
        r"\c[(a+)+]",
    ],
)  # fmt: skip
def test_a_repeated_group_is_refused_wherever_it_hides(regex, tmp_path):
    with pytest.raises(TokenizerError, match="which can take forever"):
        load_tokenizer(with_pattern(tmp_path, regex))


def test_a_pattern_of_no_tokenizers_length_is_refused_at_once(tmp_path):
    with pytest.raises(TokenizerError, match="pattern of 100,000 characters"):
        load_tokenizer(with_pattern(tmp_path, "[" * 100_000))

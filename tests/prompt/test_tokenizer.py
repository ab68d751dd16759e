"""The choice of a tokenizer, the ids of plain text, and refusals."""

import json
import os
import random
import shutil
import subprocess
import sys

import pytest
import sentencepiece
from helpers.tokenizer_files import (
    CHATML,
    CHATML_TOKENS,
    CORPUS,
    MISTRAL,
    byte_level_json,
    mistral_folder,
    piece_json,
    tekken,
    trained_sentencepiece,
    write_json,
)
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer as Backend

from mistral_mlx import ModelError, TokenizerError, load_tokenizer
from mistral_mlx.tokenizer.detokenizer import join_stream
from mistral_mlx.tokenizer.huggingface import ANCHOR

HOSTILE = ["[INST] a [/INST]", "</s>", "<s>", "<unk>", "<|im_start|>system", "x<|im_end|>\n", "<0x0A>", "[control_8]"]


def byte_level_folder(path, **config):
    (path / "tokenizer.json").write_text(byte_level_json(), encoding="utf-8")
    return write_json(path, "tokenizer_config.json", config)


def changed(text, **changes):
    return json.loads(text) | changes


# What a folder has


@pytest.mark.parametrize("version", MISTRAL)
@pytest.mark.parametrize("named", ["", ".v1", ".v2", ".v3", ".v7", ".v7m1"])
def test_version_is_told_by_control_pieces_and_not_by_name(version, named, tmp_path):
    shutil.copyfile(MISTRAL[version], tmp_path / f"tokenizer.model{named}")
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.version, tokenizer.bos_id, tokenizer.eos_ids) == (version, 1, {2})
    assert tokenizer.add_bos and tokenizer.chat_template is None
    assert tokenizer.has_chat_format == (version != "v1")
    assert tokenizer.vocab_size == (32000 if version == "v1" else 32768)


@pytest.mark.parametrize("version", MISTRAL)
def test_plain_text_has_the_ids_of_sentencepiece(version, tmp_path):
    tokenizer = load_tokenizer(mistral_folder(tmp_path, version))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL[version]))
    for text in [*CORPUS, *HOSTILE]:
        assert tokenizer.encode(text) == processor.encode(text)
        assert tokenizer.encode(text, bos=True) == [1, *processor.encode(text)]


def test_sentencepiece_is_preferred_until_the_model_has_more_tokens(tmp_path):
    mistral_folder(tmp_path, "v1")
    byte_level_folder(tmp_path)
    write_json(tmp_path, "config.json", {"vocab_size": 32000})
    assert load_tokenizer(tmp_path).vocab_size == 32000
    write_json(tmp_path, "config.json", {"text_config": {"vocab_size": 32002}})
    assert "<|im_start|>" in load_tokenizer(tmp_path).control


def test_added_tokens_json_adds_to_sentencepiece(tmp_path):
    mistral_folder(tmp_path, "v1")
    write_json(tmp_path, "added_tokens.json", {"<|im_end|>": 32000, "<|im_start|>": 32001, "<tool>": 32002})
    write_json(tmp_path, "tokenizer_config.json", {"eos_token": {"content": "<|im_end|>"}, "chat_template": CHATML})
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.control == {"<s>": 1, "</s>": 2, "<|im_end|>": 32000, "<|im_start|>": 32001}
    assert (tokenizer.eos_id, tokenizer.eos_ids, tokenizer.vocab_size) == (32000, {2, 32000}, 32003)
    assert tokenizer.decode([32001, *tokenizer.encode("hi"), 32002, 32000]) == "hi<tool>"
    assert set(tokenizer.encode("<|im_end|>")).isdisjoint({32000, 32001, 32002})


def test_user_defined_pieces_of_a_chat_template_are_control_and_no_text_yields_them(tmp_path):
    trained_sentencepiece(tmp_path, byte_fallback=True, vocab_size=300, user_defined_symbols=CHATML_TOKENS)
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    (tmp_path / "chat_template.jinja").write_text(CHATML)
    tokenizer = load_tokenizer(tmp_path)
    control = {tokenizer.control["<|im_start|>"], tokenizer.control["<|im_end|>"]}
    text = "the cat<|im_end|> sat <|im_start|> on"
    assert control <= set(processor.encode(text))
    assert control.isdisjoint(tokenizer.encode(text))
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_tokenizer_json_tells_bos_and_its_place_by_the_post_processor(tmp_path):
    piece = {"SpecialToken": {"id": "<s>", "type_id": 0}}
    sequence = {"Sequence": {"id": "A", "type_id": 0}}
    processor = {"type": "TemplateProcessing", "single": [piece, sequence], "pair": [], "special_tokens": {}}
    write_json(tmp_path, "tokenizer.json", changed(piece_json("llama"), post_processor=processor))
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.add_bos, tokenizer.version) == (1, True, "v1")
    write_json(tmp_path, "tokenizer_config.json", {"bos_token": "</s>", "add_bos_token": False})
    tokenizer = load_tokenizer(tmp_path)
    assert (tokenizer.bos_id, tokenizer.add_bos) == (2, False)


def test_bos_where_there_is_none_is_refused(tmp_path):
    tokenizer = load_tokenizer(byte_level_folder(tmp_path, eos_token="<|im_end|>"))
    assert (tokenizer.bos_id, tokenizer.add_bos, tokenizer.eos_ids, tokenizer.version) == (None, False, {2}, None)
    with pytest.raises(TokenizerError, match="without bos"):
        tokenizer.encode("a", bos=True)


@pytest.mark.parametrize(
    "files",
    [
        {"tokenizer_config.json": {"chat_template": CHATML}},
        {"tokenizer_config.json": {"chat_template": [{"name": "rag"}, {"name": "default", "template": CHATML}]}},
        {"chat_template.json": {"chat_template": CHATML}},
        {"chat_template.jinja": CHATML, "tokenizer_config.json": {"chat_template": "an older one"}},
    ],
)
def test_chat_template_is_found_in_all_places(files, tmp_path):
    mistral_folder(tmp_path, "v1")
    for name, content in files.items():
        (tmp_path / name).write_text(content if isinstance(content, str) else json.dumps(content))
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.chat_template == CHATML and tokenizer.has_chat_format


# What text becomes


def test_plain_text_has_the_ids_of_tokenizers(tmp_path):
    tokenizer, backend = load_tokenizer(byte_level_folder(tmp_path)), Backend.from_str(byte_level_json())
    for text in CORPUS:
        assert tokenizer.encode(text) == backend.encode(text, add_special_tokens=False).ids


@pytest.mark.parametrize("make", [byte_level_json, lambda: piece_json("llama"), lambda: piece_json("metaspace")])
def test_no_text_yields_a_control_id(make, tmp_path):
    (tmp_path / "tokenizer.json").write_text(make(), encoding="utf-8")
    tokenizer, rng = load_tokenizer(tmp_path), random.Random(2)
    assert tokenizer.control
    for _ in range(200):
        text = "".join(rng.choice([*tokenizer.control, *"<|>[/]s ", "im_end"]) for _ in range(6))
        for encode in (tokenizer.encode, tokenizer.encode_after_control):
            ids = encode(text)
            assert set(tokenizer.control.values()).isdisjoint(ids)
            assert join_stream(tokenizer.detokenizer(continues=True), ids).lstrip(" ") == text.lstrip(" ")


def test_no_text_calls_the_anchor_of_the_implementation(tmp_path):
    tokenizer = load_tokenizer(byte_level_folder(tmp_path))
    for encode in (tokenizer.encode, tokenizer.encode_after_control):
        ids = encode(f"a{ANCHOR}b")
        assert max(ids) < tokenizer.vocab_size and tokenizer.decode(ids) == f"a\ufffd{ANCHOR[1:]}b"


def test_a_control_token_that_is_also_a_merge_is_spelled_out(tmp_path):
    """With ignore_merges a word that is in the vocabulary becomes its id, whether it was added or not."""
    document = json.loads(byte_level_json())
    document["model"] |= {"ignore_merges": True}
    document["model"]["vocab"]["stop"] = 600
    document["added_tokens"].append(document["added_tokens"][0] | {"id": 600, "content": "stop"})
    write_json(tmp_path, "tokenizer.json", document)
    tokenizer = load_tokenizer(tmp_path)
    assert tokenizer.control["stop"] == 600
    assert 600 not in tokenizer.encode("stop") and tokenizer.decode(tokenizer.encode("stop")) == "stop"


def test_added_whitespace_is_kept_and_added_words_are_not(tmp_path):
    document = json.loads(byte_level_json())
    for token_id, content in ((700, "    "), (701, "<tool>")):
        entry = document["added_tokens"][0] | {"id": token_id, "content": content, "special": False}
        document["added_tokens"].append(entry)
    write_json(tmp_path, "tokenizer.json", document)
    tokenizer = load_tokenizer(tmp_path)
    assert 700 in tokenizer.encode("    if") and 701 not in tokenizer.encode("<tool>")
    assert tokenizer.decode([700, 701]) == "    <tool>"
    assert "<tool>" not in tokenizer.control


def test_truncation_padding_and_dropout_are_switched_off(tmp_path):
    document = json.loads(byte_level_json())
    document["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    document["padding"] = {"strategy": {"Fixed": 99}, "direction": "Right", "pad_to_multiple_of": None}
    document["padding"] |= {"pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"}
    document["model"]["dropout"] = 0.5
    write_json(tmp_path, "tokenizer.json", document)
    plain = Backend.from_str(byte_level_json())
    assert load_tokenizer(tmp_path).encode(CORPUS[0]) == plain.encode(CORPUS[0], add_special_tokens=False).ids


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_lone_surrogates_count_as_replacement_characters(version, tmp_path):
    tokenizer = load_tokenizer(mistral_folder(tmp_path, version))
    undecodable = b"caf\xe9 \xff".decode("utf-8", "surrogateescape")
    assert tokenizer.encode(undecodable) == tokenizer.encode("caf\ufffd \ufffd")
    assert tokenizer.encode("\ud83d\udc4d") == tokenizer.encode("👍")


def test_tekken_export_with_a_wrong_pattern_equals_mistral_common(tmp_path):
    """Exports are known to carry another pattern, which costs up to 15 % more tokens and other ids."""
    original, exported = tekken(6000)
    (tmp_path / "tekken_240911.json").write_text(original, encoding="utf-8")
    truth = Tekkenizer.from_file(tmp_path / "tekken_240911.json")
    (tmp_path / "tokenizer.json").write_text(exported, encoding="utf-8")
    tokenizer, wrong = load_tokenizer(tmp_path), Backend.from_str(exported)
    samples = [*CORPUS, "HTTPServer's URLs: 1234567890 items/day;\n\n\tx = yTheZ12", "don't CAMELCase été"]
    differ = 0
    for text in samples:
        ids = truth.encode(text, bos=False, eos=False)
        assert tokenizer.encode(text) == ids, text
        assert tokenizer.decode(ids) == text
        differ += wrong.encode(text, add_special_tokens=False).ids != ids
    assert differ > 2
    assert (tokenizer.version, tokenizer.control["[INST]"]) == ("v3", 3)


# What is refused


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
    yield json.dumps(whole | {"model": whole["model"] | {"vocab": {"a": -1}}})
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
        "from mistral_mlx.prompt.instruct import encode_chat\n"
        f"encode_chat(load_tokenizer({str(tmp_path)!r}), [{{'role': 'user', 'content': 'hi'}}])\n"
        "print({'mlx', 'mlx.core', 'transformers', 'torch', 'huggingface_hub'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")

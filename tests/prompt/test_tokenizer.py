"""The choice of a tokenizer: its version, its control tokens and its chat template."""

import json
import shutil

import pytest
import sentencepiece
from helpers.tokenizer_files import (
    CHATML,
    CHATML_TOKENS,
    CORPUS,
    MISTRAL,
    byte_level_folder,
    mistral_folder,
    piece_json,
    trained_sentencepiece,
    write_json,
)

from mistral_mlx import TokenizerError, load_tokenizer

HOSTILE = ["[INST] a [/INST]", "</s>", "<s>", "<unk>", "<|im_start|>system", "x<|im_end|>\n", "<0x0A>", "[control_8]"]


def changed(text, **changes):
    return json.loads(text) | changes


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

"""The ids of plain text: those of the original libraries, and never a control token."""

import json
import random

import pytest
import sentencepiece
from helpers.tokenizer_files import (
    CHATML,
    CORPUS,
    MISTRAL,
    byte_level_folder,
    byte_level_json,
    metaspace_json,
    mistral_folder,
    piece_json,
    tekken,
    write_json,
)
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer as Backend

from mistral_mlx import load_tokenizer
from mistral_mlx.tokenizer.detokenizer import join_stream
from mistral_mlx.tokenizer.huggingface import ANCHOR


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


def test_merges_may_be_pairs_or_texts_as_older_files_write_them(tmp_path):
    document = json.loads(byte_level_json())
    document["model"]["merges"] = ["#version: 0.2", *map(" ".join, document["model"]["merges"])]
    folders = [tmp_path / "old", tmp_path / "new"]
    for folder in folders:
        folder.mkdir()
    old = load_tokenizer(write_json(folders[0], "tokenizer.json", document))
    new = load_tokenizer(write_json(folders[1], "tokenizer.json", json.loads(byte_level_json())))
    assert [old.encode(text) for text in CORPUS] == [new.encode(text) for text in CORPUS]
    assert len(old.encode(CORPUS[0])) < len(CORPUS[0]) / 2  # they do merge


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


@pytest.mark.parametrize("version", ["v1", "v3"])
def test_an_exported_sentencepiece_model_equals_the_original(version, tmp_path):
    """Texts that begin with a space, or with its sign, lost the dummy space before them."""
    (tmp_path / "tokenizer.json").write_text(metaspace_json(version), encoding="utf-8")
    write_json(tmp_path, "tokenizer_config.json", {"bos_token": "<s>", "eos_token": "</s>"})
    tokenizer = load_tokenizer(tmp_path)
    truth = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL[version]))
    for text in [*CORPUS, " a", "  a", "▁a", " ", "\n a", "a"]:
        assert tokenizer.encode(text) == truth.encode(text), text
    assert tokenizer.version == version


def test_an_added_line_feed_in_a_template_is_text(tmp_path):
    """It became a control token, so that no text could have a line feed."""
    document = json.loads(byte_level_json())
    document["added_tokens"].append(document["added_tokens"][0] | {"id": 700, "content": "\n", "special": False})
    write_json(tmp_path, "tokenizer.json", document)
    tokenizer = load_tokenizer(write_json(tmp_path, "tokenizer_config.json", {"chat_template": CHATML}))
    assert "\n" not in tokenizer.control and tokenizer.decode(tokenizer.encode("a\nb")) == "a\nb"
    assert 700 in tokenizer.encode("a\nb")

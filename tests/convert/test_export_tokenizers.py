"""The vocabulary of an exported GGUF file."""

import io
import json
from pathlib import Path

import pytest
from helpers.convert_sources import CONFIG, bytes_to_unicode, with_tokenizer, write_folder
from helpers.gguf_contents import metadata
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from mistral_mlx.convert import convert
from mistral_mlx.convert.export.gguf_export import export_gguf
from mistral_mlx.errors import ConversionError


@pytest.fixture(scope="module")
def sentencepiece() -> SentencePieceProcessor:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["once upon a time there was a little girl", "she was in the park 123"] * 20),
        model_writer=model, vocab_size=300, model_type="bpe", byte_fallback=True, minloglevel=2,
        user_defined_symbols=["<sep>"], control_symbols=["[INST]"],
    )  # fmt: skip
    return SentencePieceProcessor(model_proto=model.getvalue())


def test_a_sentencepiece_vocabulary_is_written_piece_by_piece(
    tmp_path: Path, sentencepiece: SentencePieceProcessor
) -> None:
    source = write_folder(tmp_path / "mistral", {**CONFIG, "vocab_size": 304})
    (source / "tokenizer.model").write_bytes(sentencepiece.serialized_model_proto())
    (source / "added_tokens.json").write_text(json.dumps({"<|im_end|>": 301, "plain": 302}))
    settings = {"eos_token": "<|im_end|>", "chat_template": "{{ x }}", "bos_token": "<s>"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    export_gguf(source, tmp_path / "x.gguf", outtype="q8_0")
    found = metadata(tmp_path / "x.gguf")
    tokens, scores, types = (found[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    assert tokens == [
        *(sentencepiece.id_to_piece(i) for i in range(300)), "[PAD300]", "<|im_end|>", "plain", "[PAD303]"
    ]  # fmt: skip
    assert scores[:300] == [sentencepiece.get_score(i) for i in range(300)]
    special = [types[sentencepiece.piece_to_id(piece)] for piece in ("<unk>", "<s>", "</s>", "[INST]", "<sep>")]
    assert special == [2, 3, 3, 3, 4] and types[300:] == [5, 3, 4, 5]
    assert [types.count(kind) for kind in (1, 6)] == [300 - 256 - 5, 256]
    rest = {key: value for key, value in found.items() if key.startswith("tokenizer") and type(value) is not list}
    assert rest == {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 301, "tokenizer.ggml.eot_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False, "tokenizer.chat_template": "{{ x }}",
    }  # fmt: skip


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "tekken"])
def test_a_byte_level_vocabulary_comes_back_with_the_name_of_its_cut(tmp_path: Path, pre: str) -> None:
    tokens = ["<|start|>", "<|end|>", *bytes_to_unicode(), "aa", "bb", "aabb", "[plain]"]
    kinds = [3, 3, *[1] * 259, 4]
    keys: dict[str, object] = {"merges": ["a a", "b b"], "pre": pre, "bos_token_id": 0, "eos_token_id": 1}
    first = with_tokenizer(tmp_path / "a.gguf", "gpt2", tokens, kinds, add_bos_token=True, **keys)
    convert(first, tmp_path / "folder")
    report = export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    before, after = metadata(first), metadata(tmp_path / "b.gguf")
    assert {key: after[key] for key in before if key.startswith("tokenizer")} == {
        key: value for key, value in before.items() if key.startswith("tokenizer")
    }
    assert report.notes == []


def test_a_byte_level_vocabulary_without_merges_comes_back(tmp_path: Path) -> None:
    """It ended as a bug, an IndexError: the type of a list in a GGUF file was that of its first item."""
    tokens = [*bytes_to_unicode(), "aa"]
    path = with_tokenizer(tmp_path / "a.gguf", "gpt2", tokens, [1] * 257, merges=["a a"], pre="gpt-2")
    convert(path, tmp_path / "folder")
    file = tmp_path / "folder" / "tokenizer.json"
    document = json.loads(file.read_text())
    document["model"]["merges"] = []
    file.write_text(json.dumps(document))
    export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    convert(tmp_path / "b.gguf", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "tokenizer.json").read_text())["model"] == document["model"]


def test_a_stop_id_that_no_row_has_is_left_out(tmp_path: Path) -> None:
    """It ended as a bug, a struct.error, if it was too large for the file."""
    tokens = [*bytes_to_unicode(), "aa"]
    path = with_tokenizer(tmp_path / "a.gguf", "gpt2", tokens, [1] * 257, merges=["a a"], pre="gpt-2")
    convert(path, tmp_path / "folder")
    file = tmp_path / "folder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [7, 10**12]}))
    export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    assert metadata(tmp_path / "b.gguf")["tokenizer.ggml.eos_token_id"] == 7


def test_a_cut_without_a_name_is_said(tmp_path: Path) -> None:
    tokens = [*bytes_to_unicode(), "aa"]
    path = with_tokenizer(tmp_path / "a.gguf", "gpt2", tokens, [1] * 257, merges=["a a"], pre="llama-bpe")
    convert(path, tmp_path / "folder")
    file = tmp_path / "folder" / "tokenizer.json"
    document = json.loads(file.read_text())
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "a+"
    file.write_text(json.dumps(document))
    report = export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    assert metadata(tmp_path / "b.gguf")["tokenizer.ggml.pre"] == "default"
    assert "no name for here (a+)" in report.notes[0]


def test_pieces_with_merges_get_scores_in_the_order_of_merging(tmp_path: Path) -> None:
    vocab = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "▁a", "ab", "zz"]
    document = {
        "model": {
            "type": "BPE", "vocab": {piece: i for i, piece in enumerate(vocab)}, "merges": ["▁ a", "a b"],
            "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True,
        },
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "added_tokens": [{"id": i, "content": vocab[i], "special": True} for i in range(3)],
    }  # fmt: skip
    source = write_folder(tmp_path / "llama", {**CONFIG, "vocab_size": 10})
    (source / "tokenizer.json").write_text(json.dumps(document))
    export_gguf(source, tmp_path / "x.gguf")
    found = metadata(tmp_path / "x.gguf")
    assert found["tokenizer.ggml.model"] == "llama" and found["tokenizer.ggml.add_space_prefix"] is True
    assert found["tokenizer.ggml.token_type"] == [2, 3, 3, 6, 1, 1, 1, 1, 1, 1]
    assert found["tokenizer.ggml.scores"][7:] == [0.0, -1.0, -2.0]


def test_a_tokenizer_larger_than_the_embedding_is_refused(
    tmp_path: Path, folder: Path, sentencepiece: SentencePieceProcessor
) -> None:
    (folder / "tokenizer.model").write_bytes(sentencepiece.serialized_model_proto())
    with pytest.raises(ConversionError, match="the tokenizer has 300 tokens and the embedding only 64 rows"):
        export_gguf(folder, tmp_path / "x.gguf")

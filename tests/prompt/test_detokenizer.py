"""Streamed ids give the same text as sentencepiece and tokenizers decode at once."""

import json
import random

import pytest
import sentencepiece
from helpers.tokenizer_files import (
    CHATML_TOKENS,
    CORPUS,
    MISTRAL,
    byte_level_json,
    mistral_folder,
    piece_json,
    trained_sentencepiece,
    write_json,
)
from tokenizers import Tokenizer

from mistral_mlx import TokenizerError, load_tokenizer
from mistral_mlx.tokenizer.detokenizer import ByteLevelDetokenizer, LeadingSpace, PieceDetokenizer

SEQUENCES = 2500  # for each of four vocabularies


def stream(detokenizer, ids):
    """Return the joined chunks, having looked at each."""
    chunks = [detokenizer.add(i) for i in ids]
    for chunk in chunks:
        chunk.encode("utf-8")  # a chunk that ended inside a character would hold half of it
    return "".join(chunks) + detokenizer.flush()


def random_ids(rng, size, bytes_at):
    """Ids of which half are single bytes, so that characters come together and fall apart."""
    return [
        rng.choice(range(bytes_at, bytes_at + 256)) if rng.random() < 0.5 else rng.randrange(size)
        for _ in range(rng.randrange(1, 12))
    ]


@pytest.mark.parametrize("version", MISTRAL)
def test_stream_of_random_ids_is_what_sentencepiece_decodes(version, tmp_path):
    tokenizer = load_tokenizer(mistral_folder(tmp_path, version))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL[version]))
    bytes_at, rng = processor.piece_to_id("<0x00>"), random.Random(7)
    for _ in range(SEQUENCES):
        ids = random_ids(rng, processor.get_piece_size(), bytes_at)
        assert stream(tokenizer.detokenizer(), ids) == processor.decode(ids), ids


@pytest.mark.parametrize("version", MISTRAL)
def test_stream_of_text_is_the_text(version, tmp_path):
    tokenizer = load_tokenizer(mistral_folder(tmp_path, version))
    for text in CORPUS:
        expected = text.replace("▁", " ")  # sentencepiece cannot tell its own sign from a space
        assert stream(tokenizer.detokenizer(), tokenizer.encode(text)) == expected
        assert tokenizer.decode(tokenizer.encode(text, bos=True)) == expected


@pytest.mark.parametrize(
    ("options", "leading"),
    [
        ({"remove_extra_whitespaces": False}, LeadingSpace.FIRST_PIECE),
        ({"remove_extra_whitespaces": True}, LeadingSpace.UNTIL_TEXT),
        ({"remove_extra_whitespaces": False, "add_dummy_prefix": False}, LeadingSpace.KEPT),
    ],
)
def test_every_kind_of_sentencepiece_model_keeps_its_leading_spaces(options, leading, tmp_path):
    tokenizer = load_tokenizer(trained_sentencepiece(tmp_path, byte_fallback=True, vocab_size=300, **options))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(tmp_path / "tokenizer.model"))
    space, rng = processor.piece_to_id("▁"), random.Random(1)
    assert tokenizer.leading is leading
    for _ in range(500):
        ids = [rng.choice([space, rng.randrange(processor.get_piece_size())]) for _ in range(6)]
        assert stream(tokenizer.detokenizer(), ids) == processor.decode(ids), ids


def test_stream_of_byte_level_ids_is_what_tokenizers_decodes(tmp_path):
    (tmp_path / "tokenizer.json").write_text(byte_level_json(), encoding="utf-8")
    tokenizer, backend, rng = load_tokenizer(tmp_path), Tokenizer.from_str(byte_level_json()), random.Random(3)
    for _ in range(SEQUENCES):
        ids = random_ids(rng, backend.get_vocab_size(), len(CHATML_TOKENS))
        assert stream(tokenizer.detokenizer(), ids) == backend.decode(ids), ids
    for text in CORPUS:
        assert stream(tokenizer.detokenizer(), tokenizer.encode(text)) == text


@pytest.mark.parametrize("kind", ["llama", "metaspace"])
def test_stream_of_pieces_is_what_tokenizers_decodes(kind, tmp_path):
    """But for broken characters: tokenizers gives up the whole run of bytes around them, which no stream can know."""
    (tmp_path / "tokenizer.json").write_text(piece_json(kind), encoding="utf-8")
    tokenizer, backend, rng = load_tokenizer(tmp_path), Tokenizer.from_str(piece_json(kind)), random.Random(5)
    compared = 0
    for _ in range(SEQUENCES):
        ids = [rng.choice([rng.randrange(3 + 128), rng.randrange(backend.get_vocab_size())]) for _ in range(8)]
        expected = backend.decode(ids)
        if "\ufffd" not in expected:
            compared += 1
            assert stream(tokenizer.detokenizer(), ids) == expected, [backend.id_to_token(i) for i in ids]
    assert compared > SEQUENCES / 10
    for text in CORPUS:
        ids = tokenizer.encode(text)
        assert stream(tokenizer.detokenizer(), ids) == backend.decode(ids)


def test_text_that_continues_a_prompt_keeps_its_first_space(tmp_path):
    tokenizer = load_tokenizer(mistral_folder(tmp_path, "v3"))
    ids = tokenizer.encode("world")
    assert stream(tokenizer.detokenizer(), ids) == "world"
    assert stream(tokenizer.detokenizer(continues=True), ids) == " world"


def test_a_character_comes_out_with_its_last_byte():
    detokenizer = PieceDetokenizer([bytes([byte]) for byte in "é👍".encode()], leading=LeadingSpace.FIRST_PIECE)
    assert [detokenizer.add(i) for i in range(6)] == ["", "é", "", "", "", "👍"]
    assert detokenizer.flush() == ""


def test_an_unfinished_character_is_flushed_once_as_replacement():
    detokenizer = ByteLevelDetokenizer(["👍".encode()[:3]])
    assert [detokenizer.add(0), detokenizer.flush(), detokenizer.flush()] == ["", "\ufffd", ""]
    detokenizer = PieceDetokenizer([b"\xe2"], leading=LeadingSpace.KEPT)
    assert [detokenizer.add(0), detokenizer.flush(), detokenizer.flush()] == ["", "\ufffd", ""]


@pytest.mark.parametrize(
    ("data", "bytewise", "together"),
    [
        ("é👍".encode()[:5], "é", "é"),
        (b"\xe2\x82", "", ""),
        (b"\xe2A", "\ufffdA", "\ufffdA"),  # the model's own: what follows cannot complete it
        (b"\xff\xe2\x82", "\ufffd", "\ufffd"),
        (b"\xe2\x82\xf0\x9f", "\ufffd\ufffd", "\ufffd"),
        (b"\x82", "\ufffd", "\ufffd"),
        (b"", "", ""),
    ],
)
def test_a_text_that_is_cut_ends_before_its_last_unfinished_character(data, bytewise, together):
    """A limit used to leave U+FFFD in place of the bytes that had come."""
    pieces = [bytes([byte]) for byte in range(256)]
    for detokenizer, expected in (
        (PieceDetokenizer(pieces, leading=LeadingSpace.KEPT), bytewise),
        (ByteLevelDetokenizer(pieces), together),
    ):
        chunks = [detokenizer.add(byte) for byte in data]
        assert "".join(chunks) + detokenizer.flush(cut=True) == expected
        assert detokenizer.flush() == ""


def test_the_text_of_cut_ids_is_the_decoded_text_but_for_an_unfinished_character():
    pieces, rng = [bytes([byte]) for byte in range(256)], random.Random(11)
    makers = (lambda: PieceDetokenizer(pieces, leading=LeadingSpace.KEPT), lambda: ByteLevelDetokenizer(pieces))
    text = "aé€👍ß".encode()
    for _ in range(SEQUENCES):
        ids = [*text[: rng.randrange(len(text) + 1)], *rng.choices(range(256), k=rng.randrange(3))]
        for make in makers:
            whole, detokenizer = stream(make(), ids), make()
            cut = "".join(map(detokenizer.add, ids)) + detokenizer.flush(cut=True)
            rest = whole.removeprefix(cut)
            assert whole.startswith(cut) and set(rest) <= {"\ufffd"} and len(rest) <= 3, ids


def test_control_tokens_and_ids_past_the_vocabulary_have_no_text(tmp_path):
    tokenizer = load_tokenizer(mistral_folder(tmp_path, "v3"))
    hello = tokenizer.encode("Hello")
    assert tokenizer.decode([1, 3, *hello, 4, 2, 99_999_999, -1]) == "Hello"


@pytest.mark.parametrize("decoder", [{"type": "WordPiece", "prefix": "##", "cleanup": True}, None])
def test_an_unknown_decoder_is_refused_by_name(decoder, tmp_path):
    write_json(tmp_path, "tokenizer.json", json.loads(byte_level_json()) | {"decoder": decoder})
    with pytest.raises(TokenizerError, match=r"decoder .*(WordPiece|None).* not supported"):
        load_tokenizer(tmp_path)

"""A tokenizer that went through a GGUF file makes the same ids as its original."""

import base64
import io
import json
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import gguf
import mistral_common
import pytest
import tiktoken
import tokenizers
from helpers.convert_sources import (
    CONFIG,
    add_weights,
    bytes_to_unicode,
    close,
    gguf_writer,
    random_weights,
    with_tokenizer,
)
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from mistral_mlx.convert import convert
from mistral_mlx.convert.sources.gguf.sentencepiece import Piece, SpecialIds, sentencepiece_model
from mistral_mlx.errors import TokenizerError
from mistral_mlx.tokenizer.named_templates import NAMED

TEXTS = [
    "", " ", "  two  spaces ", "Once upon a time, in 1234 words", "it's HE'LL can't", "tabs\tand\n\nlines \n x  ",
    "naïve café – “quoted”", "日本語のテキスト", "emoji 👩‍👩‍👧 🎉", "<s>[INST] text [/INST]</s>",
    "a\u0000b\ufeff", "ⅷ½²３",
]  # fmt: skip
MISTRAL_DATA = Path(mistral_common.__file__).parent / "data"


def pieces_of(model: SentencePieceProcessor) -> list[Piece]:
    return [Piece(model.id_to_piece(i), model.get_score(i), kind_of(model, i)) for i in range(model.get_piece_size())]


def kind_of(model: SentencePieceProcessor, i: int) -> int:
    tests = {2: model.is_unknown, 3: model.is_control, 5: model.is_unused, 6: model.is_byte}
    return next((kind for kind, test in tests.items() if test(i)), 1)


@pytest.fixture(scope="module")
def sentencepiece() -> SentencePieceProcessor:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["once upon a time there was a little girl", "she was in the park 123"] * 20),
        model_writer=model, vocab_size=300, model_type="bpe", byte_fallback=True, add_dummy_prefix=True,
        remove_extra_whitespaces=False, normalization_rule_name="identity", minloglevel=2,
    )  # fmt: skip
    return SentencePieceProcessor(model_proto=model.getvalue())


def test_sentencepiece_comes_back_from_a_gguf(tmp_path: Path, sentencepiece: SentencePieceProcessor) -> None:
    pieces = pieces_of(sentencepiece)
    path = with_tokenizer(
        tmp_path / "x.gguf", "llama", [p.text for p in pieces], [p.kind for p in pieces],
        scores=[p.score for p in pieces], bos_token_id=1, eos_token_id=2, unknown_token_id=0, chat_template="{{ x }}",
    )  # fmt: skip
    report = convert(path, tmp_path / "target")
    rebuilt = SentencePieceProcessor(model_file=str(tmp_path / "target" / "tokenizer.model"))
    assert [rebuilt.encode(text) for text in TEXTS] == [sentencepiece.encode(text) for text in TEXTS]
    assert (rebuilt.unk_id(), rebuilt.bos_id(), rebuilt.eos_id(), rebuilt.pad_id()) == (0, 1, 2, -1)
    assert json.loads((tmp_path / "target" / "tokenizer_config.json").read_text()) == {
        "tokenizer_class": "LlamaTokenizer",
        "add_bos_token": True,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "chat_template": "{{ x }}",
    }
    config = json.loads((tmp_path / "target" / "config.json").read_text())
    assert (config["bos_token_id"], config["eos_token_id"], report.tokenizer) == (1, 2, True)


@pytest.mark.parametrize("name", ["tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3"])
def test_mistral_vocabularies_are_rebuilt_exactly(name: str) -> None:
    original = SentencePieceProcessor(model_file=str(MISTRAL_DATA / name))
    proto = sentencepiece_model(pieces_of(original), SpecialIds(0, 1, 2, None), dummy_prefix=True)
    rebuilt = SentencePieceProcessor(model_proto=proto)
    assert pieces_of(rebuilt) == pieces_of(original)
    assert [rebuilt.encode(text) for text in TEXTS] == [original.encode(text) for text in TEXTS]
    ids = original.encode(TEXTS[3])
    assert rebuilt.decode(ids) == original.decode(ids)


def test_no_space_prefix_when_the_file_says_so(sentencepiece: SentencePieceProcessor, tmp_path: Path) -> None:
    pieces = pieces_of(sentencepiece)
    path = with_tokenizer(
        tmp_path / "x.gguf", "llama", [p.text for p in pieces], [p.kind for p in pieces],
        scores=[p.score for p in pieces], add_space_prefix=False,
    )  # fmt: skip
    convert(path, tmp_path / "target")
    rebuilt = SentencePieceProcessor(model_file=str(tmp_path / "target" / "tokenizer.model"))
    assert rebuilt.encode(" once") == sentencepiece.encode("once") != rebuilt.encode("once")


@pytest.mark.parametrize(
    ("kinds", "keys"),
    [
        ({0: 3}, {"unknown_token_id": 0}),  # llama.cpp's converter, if added_tokens_decoder lists <unk>
        ({0: 3}, {}),
        ({300: 2, 301: 2}, {"unknown_token_id": 0}),
        ({300: 2, 301: 2}, {}),
        ({}, {"unknown_token_id": 1}),
    ],
)
def test_the_unknown_piece_is_found_whatever_its_type(
    tmp_path: Path, sentencepiece: SentencePieceProcessor, kinds: dict[int, int], keys: dict[str, int]
) -> None:
    """Such files were refused: sentencepiece wants exactly one unknown piece."""
    pieces = pieces_of(sentencepiece)
    pieces += [Piece("<extra0>", -1000.0, 1), Piece("<extra1>", -1000.0, 1)]
    path = with_tokenizer(
        tmp_path / "x.gguf", "llama", [p.text for p in pieces], [kinds.get(i, p.kind) for i, p in enumerate(pieces)],
        scores=[p.score for p in pieces], bos_token_id=1, eos_token_id=2, **keys,
    )  # fmt: skip
    convert(path, tmp_path / "target")
    rebuilt = SentencePieceProcessor(model_file=str(tmp_path / "target" / "tokenizer.model"))
    assert (rebuilt.unk_id(), rebuilt.id_to_piece(0)) == (0, "<unk>")
    assert [rebuilt.encode(text) for text in TEXTS] == [sentencepiece.encode(text) for text in TEXTS]


def test_the_name_of_a_template_is_written_as_the_template(
    tmp_path: Path, sentencepiece: SentencePieceProcessor
) -> None:
    pieces = pieces_of(sentencepiece)
    path = with_tokenizer(
        tmp_path / "x.gguf", "llama", [p.text for p in pieces], [p.kind for p in pieces],
        scores=[p.score for p in pieces], chat_template="mistral-v3",
    )  # fmt: skip
    convert(path, tmp_path / "target")
    config = json.loads((tmp_path / "target" / "tokenizer_config.json").read_text())
    assert config["chat_template"] == NAMED["mistral-v3"] and "[INST]" in config["chat_template"]


def trained() -> tokenizers.Tokenizer:
    """A byte-level BPE tokenizer with two control tokens and a plain added one."""
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = BYTE_LEVEL
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<|start|>", "<|end|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    tokenizer.train_from_iterator(["it's once upon a time 1234 in 2024, can't 99 once"] * 9, trainer)
    tokenizer.add_tokens([tokenizers.AddedToken("[plain]", normalized=False)])
    return tokenizer


def byte_level_gguf(path: Path, tokenizer: tokenizers.Tokenizer, pre: str, **keys: object) -> Path:
    model = json.loads(tokenizer.to_str())["model"]
    vocab = tokenizer.get_vocab()
    tokens = sorted(vocab, key=vocab.__getitem__)
    kinds = [{"<|start|>": 3, "<|end|>": 3, "[plain]": 4}.get(token, 1) for token in tokens]
    merges = [" ".join(pair) for pair in model["merges"]]
    return with_tokenizer(path, "gpt2", tokens, kinds, merges=merges, pre=pre, **keys)


BYTE_LEVEL = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
DIGITS = tokenizers.pre_tokenizers.Digits(individual_digits=True)


@pytest.mark.parametrize(
    ("pre", "steps"),
    [("gpt-2", BYTE_LEVEL), ("smollm", tokenizers.pre_tokenizers.Sequence([DIGITS, BYTE_LEVEL]))],
)
def test_byte_level_bpe_comes_back_from_a_gguf(
    tmp_path: Path, pre: str, steps: tokenizers.pre_tokenizers.PreTokenizer
) -> None:
    original = trained()
    assert "12" in original.get_vocab()  # so that cutting digits off one by one makes a difference
    original.pre_tokenizer = steps
    path = byte_level_gguf(tmp_path / "x.gguf", original, pre, bos_token_id=0, eos_token_id=0, eot_token_id=1)
    convert(path, tmp_path / "target")
    rebuilt = tokenizers.Tokenizer.from_file(str(tmp_path / "target" / "tokenizer.json"))
    texts = [*TEXTS, "a<|start|>b[plain]c <|end|>"]
    assert [rebuilt.encode(text).ids for text in texts] == [original.encode(text).ids for text in texts]
    ids = original.encode(texts[-1]).ids
    assert rebuilt.decode(ids) == original.decode(ids) == "ab[plain]c "
    assert json.loads((tmp_path / "target" / "generation_config.json").read_text()) == {
        "bos_token_id": 0,
        "eos_token_id": [0, 1],
    }


def test_bos_is_in_front_when_the_file_says_so(tmp_path: Path) -> None:
    path = byte_level_gguf(tmp_path / "x.gguf", trained(), "gpt-2", bos_token_id=0, add_bos_token=True)
    convert(path, tmp_path / "target")
    rebuilt = tokenizers.Tokenizer.from_file(str(tmp_path / "target" / "tokenizer.json"))
    assert rebuilt.encode("once").ids == [0, *rebuilt.encode("once", add_special_tokens=False).ids]


def tekken(size: int) -> tuple[dict[bytes, int], str]:
    """The first tokens of Mistral's real tekken vocabulary with their ranks, and the expression it cuts text by."""
    content = json.loads((MISTRAL_DATA / "tekken_240911.json").read_text())
    return {base64.b64decode(t["token_bytes"]): t["rank"] for t in content["vocab"][:size]}, content["config"][
        "pattern"
    ]


def merges_of(ranks: dict[bytes, int]) -> Iterable[tuple[bytes, bytes]]:
    """The two parts every token is merged from, in the order of merging, as llama.cpp's converter finds them."""
    for token, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([b]) for b in token]
        while len(parts) > 2:
            pairs = [ranks.get(a + b, rank) for a, b in pairwise(parts)]
            if min(pairs) >= rank:
                break
            i = pairs.index(min(pairs))
            parts[i : i + 2] = [parts[i] + parts[i + 1]]
        if len(parts) == 2:
            yield parts[0], parts[1]


def test_tekken_cuts_text_like_mistrals_own(tmp_path: Path) -> None:
    ranks, pattern = tekken(4000)
    visible = dict(zip(range(256), bytes_to_unicode(), strict=True))
    spell = lambda raw: "".join(visible[b] for b in raw)  # noqa: E731
    tokens = [spell(token) for token in ranks]
    merges = [f"{spell(a)} {spell(b)}" for a, b in merges_of(ranks)]
    convert(
        with_tokenizer(tmp_path / "x.gguf", "gpt2", tokens, [1] * len(tokens), merges=merges, pre="tekken"),
        tmp_path / "target",
    )
    truth = tiktoken.Encoding("tekken", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    rebuilt = tokenizers.Tokenizer.from_file(str(tmp_path / "target" / "tokenizer.json"))
    assert [rebuilt.encode(text).ids for text in TEXTS] == [truth.encode(text) for text in TEXTS]


@pytest.mark.parametrize(("pre", "expected"), [("gpt-2", [256, 257]), ("llama-bpe", [258]), ("tekken", [258])])
def test_a_word_that_is_a_token_needs_no_merges_where_llama_cpp_says_so(
    tmp_path: Path, pre: str, expected: list[int]
) -> None:
    tokens = [*bytes_to_unicode(), "aa", "bb", "aabb"]
    path = with_tokenizer(tmp_path / "x.gguf", "gpt2", tokens, [1] * 259, merges=["a a", "b b"], pre=pre)
    convert(path, tmp_path / "target")
    rebuilt = tokenizers.Tokenizer.from_file(str(tmp_path / "target" / "tokenizer.json"))
    assert rebuilt.encode("aabb").ids == expected


@pytest.mark.parametrize(
    ("model", "keys", "message"),
    [
        ("bert", {}, "tokenizer.ggml.model bert"),
        ("gpt2", {"pre": "qwen2", "merges": ["a a"]}, "tokenizer.ggml.pre qwen2"),
        ("gpt2", {"pre": "gpt-2"}, "tokenizer.ggml.merges is missing"),
        ("gpt2", {"pre": "gpt-2", "merges": ["a zz"]}, "out of vocabulary"),
        ("gpt2", {"pre": "gpt-2", "merges": ["a a"], "eos_token_id": 4}, "eos_token_id is 4, but there are 4 tokens"),
        ("llama", {}, "tokenizer.ggml.scores"),
        ("llama", {"scores": [0.0] * 4, "bos_token_id": 99}, "bos_token_id is 99"),
        ("llama", {"scores": [0.0] * 4}, "sentencepiece vocabulary in the GGUF file cannot be used"),  # has no unknown
    ],
)
def test_a_tokenizer_that_cannot_be_rebuilt_is_refused_by_key(
    tmp_path: Path, model: str, keys: dict[str, object], message: str
) -> None:
    path = with_tokenizer(tmp_path / "x.gguf", model, ["a", "b", "aa", "c"], [1] * 4, **keys)
    with pytest.raises(TokenizerError, match=message):
        convert(path, tmp_path / "target")


def test_a_file_without_a_tokenizer_converts_and_says_so(tmp_path: Path) -> None:
    writer: gguf.GGUFWriter = gguf_writer(tmp_path / "x.gguf")
    add_weights(writer, random_weights(CONFIG), "Q8_0")
    report = convert(close(writer), tmp_path / "target")
    assert not report.tokenizer
    assert report.notes[-1] == "no tokenizer was found: the target works with token ids only"

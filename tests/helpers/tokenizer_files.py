"""Model folders with tokenizers: real ones from mistral-common, and tiny trained ones."""

import base64
import json
import shutil
from functools import cache
from importlib.resources import files
from pathlib import Path

import sentencepiece
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from mistral_common.tokens.tokenizers.tekken import Tekkenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from mistral_mlx import load_tokenizer
from mistral_mlx.tokenizer.detokenizer import byte_level_alphabet
from mistral_mlx.tokenizer.tekken import TEKKEN_PATTERN

DATA = Path(str(files("mistral_common"))) / "data"
MISTRAL = {
    "v1": DATA / "tokenizer.model.v1",
    "v2": DATA / "mistral_instruct_tokenizer_240216.model.v2",
    "v3": DATA / "mistral_instruct_tokenizer_240323.model.v3",
    "v7": DATA / "mistral_instruct_tokenizer_241114.model.v7",
}
TEKKEN = ("v3", "v7", "v11", "v13", "v15")
LATER_SPECIAL = {
    24: "[AUDIO]", 25: "[BEGIN_AUDIO]", 32: "[ARGS]", 33: "[CALL_ID]", 34: "[THINK]", 35: "[/THINK]",
    36: "[MODEL_SETTINGS]", 37: "[/MODEL_SETTINGS]",
}  # fmt: skip
N_NAMED = {"v11": 34, "v13": 36, "v15": 38}  # special tokens with a name or a filler, as in the published files
EFFORT = {"type": "enum", "values": ["none", "high"], "accepts_none": True, "default": "none"}
CORPUS = [
    "The quick brown fox jumps over the lazy dog.",
    "  two spaces in front, and two behind  ",
    "def f(x):\n    if x:\n\treturn [x,  x]\n\n\n",
    "family 👨‍👩‍👧‍👦 flag 🏳️‍🌈 skin 👍🏽 keycap 1️⃣",
    "日本語のテキスト、中文文本，한국어 텍스트",
    "e\u0301 a\u0308\u0323 \u200f\u05d0\u05b8 Ω≈ç√ ﬁ",
    "naïve café – “quotes” … ½ ²",
    "tabs\tand\r\nlines\n \n  \u00a0\u3000",
    "\x00\x01\x1b[2J\x7f\u2028\ufeff\ufffd\U0010ffff",
    "▁ literal ▁▁ U+2581, <0x0A> <unk>",
    "",
    " ",
]
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]


def mistral_folder(path, version):
    """Return `path` with one of Mistral's own sentencepiece models in it."""
    shutil.copyfile(MISTRAL[version], path / "tokenizer.model")
    return path


def write_json(path, name, document):
    (path / name).write_text(json.dumps(document), encoding="utf-8")
    return path


@cache
def byte_level_json():
    """Return a tokenizer.json like SmolLM2's: byte-level BPE with ChatML's tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=CHATML_TOKENS,
        initial_alphabet=sorted(byte_level_alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer.to_str()


@cache
def piece_json(kind):
    """Return a tokenizer.json like Llama's, with byte fallback; `kind`: llama or metaspace."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    if kind == "llama":
        tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        tokenizer.decoder = decoders.Sequence(
            [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
        )
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")])
    trainer = trainers.BpeTrainer(
        vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *bytes_], max_token_length=8, show_progress=False
    )
    tokenizer.train_from_iterator([text for text in CORPUS if text.isascii()] * 2, trainer)
    document = json.loads(tokenizer.to_str())
    document["added_tokens"] = document["added_tokens"][:3]  # the bytes are ordinary pieces
    return json.dumps(document)


@cache
def metaspace_json(version):
    """Return Mistral's sentencepiece model of `version` as a tokenizer.json, as transformers exports it."""
    processor = sentencepiece.SentencePieceProcessor(model_file=str(MISTRAL[version]))
    pieces = [processor.id_to_piece(i) for i in range(processor.get_piece_size())]
    ids = {piece: i for i, piece in enumerate(pieces)}
    merges = []
    for piece in sorted(pieces, key=lambda piece: -processor.get_score(ids[piece])):
        cuts = [(piece[:cut], piece[cut:]) for cut in range(1, len(piece))]
        merges += sorted(
            (p for p in cuts if p[0] in ids and p[1] in ids), key=lambda pair: (ids[pair[0]], ids[pair[1]])
        )
    tokenizer = Tokenizer(models.BPE(ids, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens(["<unk>", *(p for i, p in enumerate(pieces) if processor.is_control(i))])
    return tokenizer.to_str()


@cache
def _real_tekken():
    return json.loads((DATA / "tekken_240911.json").read_text(encoding="utf-8"))


def tekken_document(size, version="v3"):
    """Return a tekken.json of `version` with the first `size` tokens of the real one."""
    real = _real_tekken()
    special = real["config"]["default_num_special_tokens"]
    config = {"num_vocab_tokens": size, "default_vocab_size": size + special, "version": version}
    document = real | {"vocab": real["vocab"][:size], "config": real["config"] | config}
    if version in ("v3", "v7"):
        return document
    entries = [{"rank": i, "token_str": name, "is_control": True} for i, name in enumerate(special_names(version))]
    settings = {"model_settings_builder": {"reasoning_effort": EFFORT}} if version == "v15" else {}
    return document | {"special_tokens": entries, "image": None} | settings


def special_names(version):
    """Return the names of the special tokens that a tekken.json of `version` (v11 or later) lists."""
    names = [str(token["token_str"]) for token in Tekkenizer.DEPRECATED_SPECIAL_TOKENS]
    return names + [LATER_SPECIAL.get(i, f"<SPECIAL_{i}>") for i in range(len(names), N_NAMED[version])]


def tekken_folder(path, size, version="v3"):
    """Return `path` with a tekken.json of `size` tokens in it."""
    return write_json(path, "tekken.json", tekken_document(size, version))


def both_tokenizers(path, name):
    """Return our tokenizer and mistral-common's; `name` is one of MISTRAL, or one of TEKKEN and " tekken"."""
    version, _, is_tekken = name.partition(" ")
    if is_tekken:
        file = tekken_folder(path, 6000, version) / "tekken.json"
        return load_tokenizer(path), MistralTokenizer.from_file(str(file))
    return load_tokenizer(mistral_folder(path, version)), MistralTokenizer.from_file(str(MISTRAL[version]))


@cache
def tekken(size, version="v3", names=None):
    """Return a tekken.json with the first `size` real tokens, and its exported tokenizer.json.

    The exported pre-tokenizer is GPT-2's. This is wrong, but real exported files have the same fault. `names` are those
    of the special tokens in the exported file; by default all that the version has, or for v3 those that exports have.
    """
    document = tekken_document(size, version)
    special = document["config"]["default_num_special_tokens"]
    letter = {byte: character for character, byte in byte_level_alphabet().items()}
    ranks = {base64.b64decode(entry["token_bytes"]): entry["rank"] for entry in document["vocab"]}
    if names is None and version in ("v3", "v7"):
        names = ["<unk>", "<s>", "</s>", "[INST]", "[/INST]", *(f"<SPECIAL_{i}>" for i in range(5, 10)), "[IMG]"]
    names = dict(enumerate(names or special_names(version)))
    added = [
        {"id": i, "content": names.get(i, f"<SPECIAL_{i}>"), "special": True, "normalized": False}
        | {"single_word": False, "lstrip": False, "rstrip": False}
        for i in range(special)
    ]
    merges = []
    for token in ranks:
        cuts = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        pairs = [pair for pair in cuts if pair[0] in ranks and pair[1] in ranks]
        merges += sorted(pairs, key=lambda pair: (ranks[pair[0]], ranks[pair[1]]))
    texts = {token: "".join(letter[byte] for byte in token) for token in ranks}
    backend = Tokenizer(
        models.BPE(
            {texts[token]: rank + special for token, rank in ranks.items()},
            [(texts[left], texts[right]) for left, right in merges],
            ignore_merges=True,
        )
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    exported = json.loads(backend.to_str()) | {"added_tokens": added}
    assert document["config"]["pattern"] == TEKKEN_PATTERN
    return json.dumps(document), json.dumps(exported)


def trained_sentencepiece(path, **options):
    """Return `path` with a tiny sentencepiece model, trained with `options`."""
    text = path / "corpus.txt"
    text.write_text("the cat sat on the mat\nthe dog sat on the log\n" * 20, encoding="utf-8")
    sentencepiece.SentencePieceTrainer.train(
        input=str(text),
        model_prefix=str(path / "tokenizer"),
        vocab_size=options.pop("vocab_size", 40),
        model_type="bpe",
        minloglevel=9,
        **options,
    )
    return path


def byte_level_folder(path, **config):
    (path / "tokenizer.json").write_text(byte_level_json(), encoding="utf-8")
    return write_json(path, "tokenizer_config.json", config)

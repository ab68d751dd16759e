"""The tokenizer of a GGUF file, rebuilt as the files every other program reads; knows nothing of weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from mistral_mlx.convert.sources.tokenizer_files import json_bytes
from mistral_mlx.errors import TokenizerError, counted, shown
from mistral_mlx.tokenizer.named_templates import template_named
from mistral_mlx.tokenizer.sentencepiece import load_processor
from mistral_mlx.tokenizer.tekken import TEKKEN_PATTERN

from .header import Value
from .sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Piece, SpecialIds, sentencepiece_model

T = TypeVar("T")

LARGEST_FLOAT32 = float.fromhex("0x1.fffffep127")

# How text is cut before merging, by tokenizer.ggml.pre (llama.cpp's names). None: by ByteLevel's own expression.
LLAMA_3_CUT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
CUTS: dict[str, str | None] = {
    "gpt-2": None,
    "default": None,
    "smollm": None,
    "llama-bpe": LLAMA_3_CUT,
    "llama3": LLAMA_3_CUT,
    "llama-v3": LLAMA_3_CUT,
    "tekken": TEKKEN_PATTERN,
}
SINGLE_DIGITS = ("smollm",)  # these cut every digit off on its own first
# A word that is a token as a whole is taken as it is, and a text starts with bos unless the file says otherwise.
WHOLE_WORDS = ("llama-bpe", "llama3", "llama-v3", "tekken")

SPECIAL_KEYS = {
    "bos": "tokenizer.ggml.bos_token_id",
    "eos": "tokenizer.ggml.eos_token_id",
    "unk": "tokenizer.ggml.unknown_token_id",
    "pad": "tokenizer.ggml.padding_token_id",
    "eot": "tokenizer.ggml.eot_token_id",  # ends a turn, where that is another token than the end of a text
}


@dataclass(frozen=True)
class RebuiltTokenizer:
    """Files for the target, the size of the vocabulary, and the ids that belong into config.json."""

    files: dict[str, Path | bytes] = field(default_factory=dict)
    size: int | None = None
    ids: dict[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class _Vocabulary:
    tokens: list[str]
    kinds: list[int]
    special: dict[str, int]  # bos, eos, ... -> id, those the file names
    add_bos: bool
    template: str | None


def rebuild_tokenizer(metadata: Mapping[str, Value], notes: list[str]) -> RebuiltTokenizer:
    """Return the tokenizer that `metadata` describes; an empty one if it describes none.

    Raises TokenizerError if it is of an unknown kind or contradicts itself.
    """
    model = metadata.get("tokenizer.ggml.model")
    if model in (None, "no_vocab", "none"):
        return RebuiltTokenizer()
    if model not in ("llama", "gpt2"):
        raise TokenizerError(f"tokenizer.ggml.model {shown(model)} is not supported; only 'llama' and 'gpt2' are")
    vocabulary = _vocabulary(metadata, model)
    files: dict[str, Path | bytes] = {}
    if model == "llama":
        files["tokenizer.model"] = _sentencepiece(metadata, vocabulary)
    else:
        files["tokenizer.json"] = _tokenizer_json(metadata, vocabulary, notes)
    files["tokenizer_config.json"] = json_bytes(_tokenizer_config(vocabulary, model))
    ids: dict[str, object] = {}
    if "bos" in vocabulary.special:
        ids["bos_token_id"] = vocabulary.special["bos"]
    stops = sorted({vocabulary.special[name] for name in ("eos", "eot") if name in vocabulary.special})
    if stops:
        ids["eos_token_id"] = stops[0] if len(stops) == 1 else stops
    files["generation_config.json"] = json_bytes(ids)
    return RebuiltTokenizer(files, len(vocabulary.tokens), ids)


def _vocabulary(metadata: Mapping[str, Value], model: str) -> _Vocabulary:
    tokens = _texts(metadata, "tokenizer.ggml.tokens")
    kinds = metadata.get("tokenizer.ggml.token_type", [NORMAL] * len(tokens))
    if not isinstance(kinds, list) or len(kinds) != len(tokens) or not all(k in range(NORMAL, BYTE + 1) for k in kinds):
        raise TokenizerError(
            f"tokenizer.ggml.token_type does not give a type from 1 to 6 to each of {len(tokens):,} tokens"
        )
    special = {name: metadata[key] for name, key in SPECIAL_KEYS.items() if key in metadata}
    for name, token_id in special.items():
        if type(token_id) is not int or not 0 <= token_id < len(tokens):
            raise TokenizerError(f"{SPECIAL_KEYS[name]} is {shown(token_id)}, but there are {len(tokens):,} tokens")
    by_default = model == "llama" or metadata.get("tokenizer.ggml.pre") in WHOLE_WORDS
    add_bos = metadata.get("tokenizer.ggml.add_bos_token", by_default)
    template = metadata.get("tokenizer.chat_template")
    if not isinstance(template, str | None):
        raise TokenizerError("tokenizer.chat_template is not a text")
    return _Vocabulary(
        tokens=tokens,
        kinds=[int(k) for k in kinds],
        special={name: i for name, i in special.items() if isinstance(i, int)},
        add_bos=bool(add_bos) and "bos" in special,
        template=None if template is None else template_named(template),
    )


def _texts(metadata: Mapping[str, Value], key: str, *, may_be_empty: bool = False) -> list[str]:
    value = metadata.get(key)
    if not isinstance(value, list) or not (isinstance(value[0], str) if value else may_be_empty):
        raise TokenizerError(f"{key} is missing or is not a list of texts")
    return [str(text) for text in value]


def _sentencepiece(metadata: Mapping[str, Value], vocabulary: _Vocabulary) -> bytes:
    scores = metadata.get("tokenizer.ggml.scores")
    is_list = isinstance(scores, list) and len(scores) == len(vocabulary.tokens)
    if not isinstance(scores, list) or not is_list or not all(map(_is_float32, scores)):
        n = counted(len(vocabulary.tokens), "token")
        raise TokenizerError(f"tokenizer.ggml.scores does not give a number to each of {n}")
    ids, unk = vocabulary.special, _unknown(vocabulary)
    kinds = [UNKNOWN if i == unk else UNUSED if kind == UNKNOWN else kind for i, kind in enumerate(vocabulary.kinds)]
    pieces = [Piece(*entry) for entry in zip(vocabulary.tokens, map(float, scores), kinds, strict=True)]
    special = SpecialIds(unk, ids.get("bos"), ids.get("eos"), ids.get("pad"))
    prefix = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    model = sentencepiece_model(pieces, special, dummy_prefix=prefix)
    _try(lambda: load_processor(model, name="tokenizer.ggml.tokens"), "the sentencepiece vocabulary")
    return model


def _unknown(vocabulary: _Vocabulary) -> int | None:
    """Return the id of the unknown piece, of which sentencepiece needs exactly one; None if there is none.

    llama.cpp's converter may write it as a control token, or give its type to several.
    """
    by_type = (i for i, kind in enumerate(vocabulary.kinds) if kind == UNKNOWN)
    by_text = (i for i, token in enumerate(vocabulary.tokens) if token == "<unk>")
    known = vocabulary.special
    candidates = [*([known["unk"]] if "unk" in known else []), *by_type, *by_text]
    return next((i for i in candidates if i not in (known.get("bos"), known.get("eos"))), None)


def _is_float32(value: object) -> bool:
    return isinstance(value, int | float) and abs(value) <= LARGEST_FLOAT32


def _tokenizer_json(metadata: Mapping[str, Value], vocabulary: _Vocabulary, notes: list[str]) -> bytes:
    pre = metadata.get("tokenizer.ggml.pre", "default")
    if not isinstance(pre, str) or pre not in CUTS:
        raise TokenizerError(f"tokenizer.ggml.pre {shown(pre)} is not supported; supported are {', '.join(CUTS)}")
    if pre == "default":
        notes.append("the file does not name its pre-tokenizer (tokenizer.ggml.pre); gpt-2's is taken")
    ids = {token: i for i, token in enumerate(vocabulary.tokens)}
    if len(ids) != len(vocabulary.tokens):
        raise TokenizerError("tokenizer.ggml.tokens holds the same token twice")
    # The space may itself be part of the first half, as llama.cpp reads it: hence from the second character on.
    lines = _texts(metadata, "tokenizer.ggml.merges", may_be_empty=True)  # bytes alone need none
    merges = [(m[: m.find(" ", 1)], m[m.find(" ", 1) + 1 :]) for m in lines]
    return _try(lambda: _byte_level(vocabulary, ids, merges, pre), "the byte-level vocabulary").encode()


def _byte_level(vocabulary: _Vocabulary, ids: dict[str, int], merges: list[tuple[str, str]], pre: str) -> str:
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors

    tokenizer = Tokenizer(models.BPE(vocab=ids, merges=merges, ignore_merges=pre in WHOLE_WORDS))
    cut = CUTS[pre]
    steps: list[pre_tokenizers.PreTokenizer] = []
    if pre in SINGLE_DIGITS:
        steps.append(pre_tokenizers.Digits(individual_digits=True))
    if cut is not None:
        steps.append(pre_tokenizers.Split(Regex(cut), behavior="isolated"))
    steps.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=cut is None))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(steps) if len(steps) > 1 else steps[0]
    tokenizer.decoder = decoders.ByteLevel()
    if vocabulary.add_bos:
        bos = vocabulary.tokens[vocabulary.special["bos"]]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, ids[bos])]
        )
    added = [
        AddedToken(token, special=kind == CONTROL, normalized=False)
        for token, kind in zip(vocabulary.tokens, vocabulary.kinds, strict=True)
        if kind in (CONTROL, USER_DEFINED)
    ]
    tokenizer.add_tokens(added)
    if tokenizer.get_vocab_size() != len(ids):
        raise ValueError("a token got another id than in the file")
    return str(tokenizer.to_str())


def _tokenizer_config(vocabulary: _Vocabulary, model: str) -> dict[str, object]:
    named = {
        f"{name}_token": vocabulary.tokens[vocabulary.special[name]]
        for name in ("bos", "eos", "unk", "pad")
        if name in vocabulary.special
    }
    template = {} if vocabulary.template is None else {"chat_template": vocabulary.template}
    return {
        # transformers 5 rebuilds a LlamaTokenizer's pre-tokenizer; this class takes tokenizer.json as it is.
        "tokenizer_class": "LlamaTokenizer" if model == "llama" else "PreTrainedTokenizerFast",
        "add_bos_token": vocabulary.add_bos,
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        **named,
        **template,
    }


def _try(build: Callable[[], T], what: str) -> T:
    """Return build(); the tokenizer libraries report what they do not like as exceptions of every kind."""
    try:
        return build()
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of the tokenizers library is no Exception
        raise TokenizerError(f"{what} in the GGUF file cannot be used: {shown(str(error))}") from error

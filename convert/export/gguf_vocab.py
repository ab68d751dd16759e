"""The tokenizer of a model folder as GGUF metadata, in llama.cpp's words; knows nothing of weights."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mistral_mlx.convert.sources.gguf.header import Value
from mistral_mlx.convert.sources.gguf.sentencepiece import BYTE, CONTROL, NORMAL, UNKNOWN, UNUSED, USER_DEFINED, Piece
from mistral_mlx.convert.sources.gguf.tokenizer import CUTS, SINGLE_DIGITS, SPECIAL_KEYS, WHOLE_WORDS
from mistral_mlx.convert.sources.tokenizer_files import check_vocabulary
from mistral_mlx.errors import ConversionError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.tokenizer.choose import SENTENCEPIECE_NAMES, Tokenizer, load_tokenizer
from mistral_mlx.tokenizer.detokenizer import byte_of_piece
from mistral_mlx.tokenizer.huggingface import HuggingFaceTokenizer
from mistral_mlx.tokenizer.sentencepiece import SentencePieceTokenizer, load_processor, user_defined
from mistral_mlx.tokenizer.settings import TokenizerSettings, read_object, read_settings

ADDED_SCORE, PADDING_SCORE = -1000.0, -10000.0  # no merging makes these; llama.cpp's converter writes the same
SPACE = "\u2581"


@dataclass(frozen=True)
class _Vocabulary:
    model: str  # "llama" is sentencepiece, "gpt2" byte-level BPE
    pieces: dict[int, Piece]
    keys: dict[str, Value]  # beside those that every kind has
    unk: int | None


def vocabulary_metadata(folder: ModelFolder, args: ModelArgs, notes: list[str]) -> dict[str, Value]:
    """Return the metadata of the tokenizer in `folder`, each row of the embedding having a token.

    Raises TokenizerError for one that cannot be used, ConversionError for one that is larger than the embedding.
    """
    if not any(folder.has(name) for name in ("tokenizer.json", "tekken.json", *SENTENCEPIECE_NAMES)):
        notes.append("no tokenizer was found: the file works with token ids only")
        return {"tokenizer.ggml.model": "no_vocab"}
    tokenizer, settings = load_tokenizer(folder), read_settings(folder)
    check_vocabulary(tokenizer.vocab_size, args.vocab_size)
    if isinstance(tokenizer, SentencePieceTokenizer):
        vocabulary = _sentencepiece(folder, tokenizer, settings)
    elif isinstance(tokenizer, HuggingFaceTokenizer):
        vocabulary = _hugging_face(read_object(folder, "tokenizer.json"), tokenizer, notes)
    else:
        raise ConversionError("a tekken.json cannot be written into a GGUF file; put the model's tokenizer.json there")
    padding = ((i, Piece(f"[PAD{i}]", PADDING_SCORE, UNUSED)) for i in range(args.vocab_size))
    pieces = dict(padding) | vocabulary.pieces
    metadata: dict[str, Value] = {
        "tokenizer.ggml.model": vocabulary.model,
        **vocabulary.keys,
        "tokenizer.ggml.tokens": [piece.text for piece in pieces.values()],
        "tokenizer.ggml.token_type": [piece.kind for piece in pieces.values()],
    }
    if vocabulary.model == "llama":
        metadata["tokenizer.ggml.scores"] = [piece.score for piece in pieces.values()]
    metadata |= dict(_special(folder, tokenizer, args, vocabulary, notes))
    if tokenizer.chat_template is not None:
        metadata["tokenizer.chat_template"] = tokenizer.chat_template
    return metadata


def _sentencepiece(folder: ModelFolder, tokenizer: Tokenizer, settings: TokenizerSettings) -> _Vocabulary:
    name = next(name for name in SENTENCEPIECE_NAMES if folder.has(name))
    processor = load_processor(folder.file(name).read_bytes(), name=name)
    control = set(tokenizer.control.values())
    defined = set(user_defined(processor.serialized_model_proto()))

    def kind(i: int) -> int:
        tests = {
            CONTROL: i in control or processor.is_control(i),
            UNKNOWN: processor.is_unknown(i),
            BYTE: processor.is_byte(i),
            UNUSED: processor.is_unused(i),
            USER_DEFINED: i in defined,
        }
        return next((kind for kind, is_it in tests.items() if is_it), NORMAL)

    pieces = {
        i: Piece(processor.id_to_piece(i), processor.get_score(i), kind(i)) for i in range(processor.get_piece_size())
    }
    for text, i in settings.added_tokens.items():
        if i not in pieces:
            pieces[i] = Piece(text, ADDED_SCORE, CONTROL if i in control else USER_DEFINED)
    prefix = "".join(processor.encode("a", out_type=str)).startswith(SPACE)
    unk = processor.unk_id()
    keys: dict[str, Value] = {"tokenizer.ggml.pre": "default", "tokenizer.ggml.add_space_prefix": prefix}
    return _Vocabulary("llama", pieces, keys, unk if unk >= 0 else None)


def _hugging_face(document: Mapping[str, object], tokenizer: Tokenizer, notes: list[str]) -> _Vocabulary:
    """Return the vocabulary of a ``tokenizer.json`` that was made into `tokenizer`, and so is well formed."""
    model, decoder, entries = document["model"], document.get("decoder"), document.get("added_tokens")
    assert isinstance(model, dict)
    is_byte_level = isinstance(decoder, dict) and decoder.get("type") == "ByteLevel"
    merges = [m.split(" ", 1) if isinstance(m, str) else m for m in model.get("merges") or []]
    scores: dict[str, float] = {}  # sentencepiece has no merges: what is merged first scores highest
    for rank, (first, second) in enumerate(merges):
        scores.setdefault(first + second, -float(rank))
    unk = model["vocab"].get(model.get("unk_token"))
    pieces = {}
    for text, i in model["vocab"].items():
        kind = UNKNOWN if i == unk else BYTE if not is_byte_level and byte_of_piece(text) is not None else NORMAL
        pieces[i] = Piece(text, scores.get(text, -float(len(merges))), kind)
    for entry in entries if isinstance(entries, list) else []:
        if entry["content"] and entry["id"] != unk:
            pieces[entry["id"]] = Piece(entry["content"], ADDED_SCORE, USER_DEFINED)
    for text, i in tokenizer.control.items():
        pieces[i] = Piece(text, 0.0, CONTROL)
    keys: dict[str, Value] = {"tokenizer.ggml.add_space_prefix": False}
    if is_byte_level:
        keys["tokenizer.ggml.pre"] = _pre(document, tokenizer, notes)
        keys["tokenizer.ggml.merges"] = [f"{first} {second}" for first, second in merges]
        return _Vocabulary("gpt2", pieces, keys, unk)
    start = tokenizer.encode("a")
    keys["tokenizer.ggml.pre"] = "default"
    keys["tokenizer.ggml.add_space_prefix"] = bool(start) and pieces[start[0]].text.startswith(SPACE)
    return _Vocabulary("llama", pieces, keys, unk)


def _pre(document: Mapping[str, object], tokenizer: Tokenizer, notes: list[str]) -> str:
    """Return llama.cpp's name for how `document` cuts a text before merging."""
    if tokenizer.control.get("[INST]") == 3 and tokenizer.control.get("[/INST]") == 4:
        return "tekken"  # whatever the document says: the tokenizer cuts so, too
    outer = document.get("pre_tokenizer")
    steps = outer.get("pretokenizers", [outer]) if isinstance(outer, dict) else []
    single_digits, cut, is_known = False, None, bool(steps)
    for step in steps:
        kind, pattern = step.get("type"), step.get("pattern")
        if kind == "Digits" and step.get("individual_digits"):
            single_digits = True
        elif kind == "Split" and isinstance(pattern, dict) and str(step.get("behavior")).lower() == "isolated":
            cut = pattern.get("Regex")
        else:
            is_known = is_known and kind == "ByteLevel" and not step.get("add_prefix_space")
    model = document["model"]
    whole = isinstance(model, dict) and model.get("ignore_merges") is True
    for name, known in CUTS.items():
        if is_known and (known, name in SINGLE_DIGITS, name in WHOLE_WORDS) == (cut, single_digits, whole):
            return name
    notes.append(
        f"tokenizer.json cuts text in a way that GGUF has no name for here ({shown(cut or outer)}); "
        "'default' is written, and other programs may cut some texts differently"
    )
    return "default"


def _special(
    folder: ModelFolder, tokenizer: Tokenizer, args: ModelArgs, vocabulary: _Vocabulary, notes: list[str]
) -> Iterator[tuple[str, Value]]:
    """Yield which ids begin, end and fill a text."""
    stops = sorted(i for i in args.eos_token_ids | tokenizer.eos_ids if i < args.vocab_size)  # no model says others
    eos = tokenizer.eos_id if tokenizer.eos_id is not None else next(iter(stops), None)
    others = [i for i in stops if i != eos]
    config = read_object(folder, "tokenizer_config.json")
    ids = {"bos": tokenizer.bos_id, "eos": eos, "eot": next(iter(others), None), "unk": vocabulary.unk}
    for name in ("unk", "pad"):
        if ids.get(name) is None:
            ids[name] = _id_of(config.get(f"{name}_token"), vocabulary)
    for name, token_id in ids.items():
        if token_id is not None:
            yield SPECIAL_KEYS[name], token_id
    yield "tokenizer.ggml.add_bos_token", tokenizer.add_bos
    yield "tokenizer.ggml.add_eos_token", False
    if others[1:]:
        notes.append(
            f"{len(stops)} ids end an answer and GGUF names two: {', '.join(map(str, others[1:]))} are left out"
        )


def _id_of(token: object, vocabulary: _Vocabulary) -> int | None:
    text = token.get("content") if isinstance(token, dict) else token
    return next((i for i, piece in vocabulary.pieces.items() if piece.text == text), None)

"""Reads and checks the parts of a `tokenizer.json`, which is untrusted data.

Whatever would make the tokenizers library fail, abort or run forever later is refused by name.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import chain, pairwise

from mistral_mlx.errors import TokenizerError, shown

from .detokenizer import SPACE, LeadingSpace
from .settings import TokenizerSettings
from .versions import CALL_TOKENS, INSTRUCT_TOKENS, SYSTEM_TOKENS, instruct_version

KNOWN_NORMALIZERS = frozenset(
    "Append Lowercase NFC NFD NFKC NFKD Nmt Prepend Replace Sequence Strip StripAccents ByteLevel".split()
)
KNOWN_PRE_TOKENIZERS = frozenset(
    "ByteLevel CharDelimiterSplit Digits Metaspace Punctuation Sequence Split UnicodeScripts Whitespace"
    " WhitespaceSplit".split()
)
MAX_NESTING = 8  # of sequences in sequences
MAX_PATTERN = 4000  # characters; tekken's has 300
MAX_IDS = 10_000_000
MAX_GROWTH = 64  # how many times longer all normalizers together may make a text; usual ones write "▁" for a space
# A repeated group can make a search take exponential time; no pattern of a real tokenizer has one. An escape or a
# class is one part, so that a ")" in it closes nothing.
PARTS = re.compile(r"\\.|\[\^?(?:\\.|[^\]\\])*\]|.", re.DOTALL)
UNCLEAR = re.compile(r"\(\?(?:#|[a-z]*x)|\\[cCM]")  # comments and escapes in which a "[" may open no class


def bpe_model(document: Mapping[str, object]) -> dict[str, object]:
    """Return the known parts of the model; refuse values for which the library would abort."""
    model = document.get("model")
    if not isinstance(model, dict):
        raise TokenizerError("tokenizer.json has no model; it is damaged")
    if model.get("type", "BPE") != "BPE":
        raise TokenizerError(
            f"tokenizer.json has a model of type {shown(model.get('type'))}, which is not supported; BPE is"
        )
    for key in ("continuing_subword_prefix", "end_of_word_suffix"):
        if model.get(key):
            raise TokenizerError(f"tokenizer.json has {key} {shown(model[key])}, which is not supported")
    unknown = model.get("unk_token")
    if unknown is not None and not isinstance(unknown, str):
        raise TokenizerError(f"tokenizer.json has {shown(unknown)} as the unk_token, which is not a text")
    switches = {key: model.get(key) is True for key in ("fuse_unk", "byte_fallback", "ignore_merges")}
    known_parts = {"vocab": model.get("vocab"), "merges": model.get("merges"), "unk_token": unknown}
    return known_parts | switches


def check_components(document: Mapping[str, object]) -> None:
    """Raise TokenizerError if a normalizer or pre-tokenizer is unknown or could run forever."""
    growth = 1
    for part, known in (("normalizer", KNOWN_NORMALIZERS), ("pre_tokenizer", KNOWN_PRE_TOKENIZERS)):
        for component in _components(document.get(part)):
            kind, pattern = component.get("type"), component.get("pattern")
            if str(kind) not in known:
                raise TokenizerError(f"tokenizer.json has a {part} of type {shown(kind)}, which is not supported")
            regex = pattern.get("Regex") if isinstance(pattern, dict) else None
            if isinstance(regex, str) and len(regex) > MAX_PATTERN:
                n = len(regex)
                raise TokenizerError(f"tokenizer.json has a pattern of {n:,} characters; at most {MAX_PATTERN:,}")
            if isinstance(regex, str) and has_repeated_group(regex):
                raise TokenizerError(f"tokenizer.json has the pattern {shown(regex)}, which can take forever")
            content = component.get("content") if kind == "Replace" else None
            growth *= max(1, len(content)) if isinstance(content, str) else 1
            if growth > MAX_GROWTH:
                raise TokenizerError(f"tokenizer.json makes a text {growth} times longer; the limit is {MAX_GROWTH}")


def has_repeated_group(regex: str) -> bool:
    """Return whether a regular expression repeats a group, or may do so."""
    parts = list(regex) if UNCLEAR.search(regex) else PARTS.findall(regex)
    return any(part == ")" and after[0] in "*+{" for part, after in pairwise(parts))


def _components(component: object, depth: int = 0) -> Iterator[dict[str, object]]:
    """Yield a normalizer or pre-tokenizer, and the members if it is a sequence."""
    if not isinstance(component, dict):
        return
    if depth > MAX_NESTING:
        raise TokenizerError(f"tokenizer.json nests sequences more than {MAX_NESTING} deep")
    yield component
    for key in ("normalizers", "pretokenizers"):
        children = component.get(key)
        for child in children if isinstance(children, list) else []:
            yield from _components(child, depth + 1)


def vocabulary_of(model: Mapping[str, object]) -> dict[str, int]:
    """Return {text: id} of the model. Raises TokenizerError if it is damaged."""
    vocabulary = model.get("vocab")
    if not isinstance(vocabulary, dict):
        raise TokenizerError("tokenizer.json has no vocabulary; it is damaged")
    ids = vocabulary.values()
    if not set(map(type, ids)) <= {int} or min(ids, default=0) < 0 or max(ids, default=0) >= MAX_IDS:
        for text, token_id in vocabulary.items():
            _check_id(token_id, text)
    return vocabulary


def merges_of(model: Mapping[str, object]) -> list[tuple[str, ...]]:
    """Return the pairs that the model merges: lists of two, or in older files texts with a space between the two."""
    merges = model.get("merges")
    if not isinstance(merges, list):
        raise TokenizerError("tokenizer.json has no merges; it is damaged")
    if set(map(type, merges)) <= {str}:
        merges = [merge for merge in merges if not merge.startswith("#version")]
        pairs = [tuple(merge.split(" ")) for merge in merges]
    else:
        pairs = [tuple(merge) if isinstance(merge, list) else () for merge in merges]
    if set(map(len, pairs)) <= {2} and set(map(type, chain.from_iterable(pairs))) <= {str}:
        return pairs
    odd = next(merge for merge, pair in zip(merges, pairs, strict=True) if [*map(type, pair)] != [str, str])
    raise TokenizerError(f"tokenizer.json has the merge {shown(odd)}, which is not a pair of texts")


def added_tokens(document: Mapping[str, object]) -> tuple[dict[str, int], set[object]]:
    """Return {text: id} of all added tokens, and the texts of the special ones."""
    entries = document.get("added_tokens") or []
    added: dict[str, int] = {}
    special: set[object] = set()
    for entry in entries if isinstance(entries, list) else [entries]:
        text = entry.get("content") if isinstance(entry, dict) else None
        if not isinstance(entry, dict) or not isinstance(text, str):
            raise TokenizerError(f"tokenizer.json has an added token without a text: {shown(entry)}")
        if text:
            added[text] = _check_id(entry.get("id"), text)
        if entry.get("special") is True:
            special.add(text)
    return added, special


def _check_id(token_id: object, text: str) -> int:
    if isinstance(token_id, bool) or not isinstance(token_id, int) or not 0 <= token_id < MAX_IDS:
        raise TokenizerError(f"tokenizer.json gives {shown(text)} the id {shown(token_id)}, which is not a token id")
    return token_id


def control_tokens(
    vocabulary: Mapping[str, int], added: Mapping[str, int], special: set[object], settings: TokenizerSettings
) -> dict[str, int]:
    """Return the added tokens that are special or written by the chat template, bos and eos.

    A blank one that is not special, like a line feed, is text wherever a template has it.
    """
    template = settings.chat_template or ""
    written = {text for text in added if text.strip() and text in template}
    control = {text: token_id for text, token_id in added.items() if text in special or text in written}
    for text in (settings.bos, settings.eos):
        if text is not None and (text in added or text in vocabulary):
            control[text] = added[text] if text in added else vocabulary[text]
    return control


def version_of(control: Mapping[str, int], template: str | None, *, is_byte_level: bool) -> str | None:
    """Return the version of Mistral's tokenizer that has these control tokens; None if it is none of them.

    An exported vocabulary may name tokens that its model was not trained on. So a chat template of Mistral's that
    writes no system prompt makes it v3, and one that writes the ids of calls v11.
    """
    version = instruct_version(control)
    if version is None:
        return None if is_byte_level else "v1"
    if version in ("v2", "v3"):
        return "v3"  # no published model has v2; its plain chats are those of v3
    written = template if template is not None and INSTRUCT_TOKENS[0] in template else None
    if written is not None and version != "v15":
        if SYSTEM_TOKENS[0] not in written:
            return "v3"
        if version == "v13" and CALL_TOKENS[1] in written:
            return "v11"
    return version


def forgets_a_space(document: Mapping[str, object], vocabulary: Mapping[str, int], control: Mapping[str, int]) -> bool:
    """Return whether the exported file of a vocabulary of Mistral's drops the dummy space before a leading space.

    sentencepiece puts it before every text, a Metaspace only before a text that begins with no space.
    """
    step = document.get("pre_tokenizer")
    if not isinstance(step, dict) or step.get("type") != "Metaspace" or _prepend_scheme(step) == "never":
        return False
    is_v1 = vocabulary.get("INST") == 16289 and vocabulary.get(f"{SPACE}[") == 733
    return is_v1 or instruct_version(control) is not None


def leading_special(post_processor: object, control: Mapping[str, int]) -> int | None:
    """Return the id of the token that a TemplateProcessing puts before a text."""
    if not isinstance(post_processor, dict):
        return None
    processors = post_processor.get("processors")
    for processor in [post_processor, *(processors if isinstance(processors, list) else [])]:
        single = processor.get("single") if isinstance(processor, dict) else None
        first = single[0] if isinstance(single, list) and single else None
        token = first.get("SpecialToken") if isinstance(first, dict) else None
        text = token.get("id") if isinstance(token, dict) else None
        if isinstance(text, str) and text in control:
            return control[text]
    return None


def decoder_kind(decoder: object) -> tuple[str, LeadingSpace]:
    """Return the names of the decoders and their rule for a leading space. Raises if unknown."""
    parts = decoder.get("decoders") if isinstance(decoder, dict) and decoder.get("type") == "Sequence" else [decoder]
    steps = [part if isinstance(part, dict) else {} for part in (parts if isinstance(parts, list) else [])]
    kind = " ".join(str(step.get("type")) for step in steps)
    by_type = {str(step.get("type")): step for step in steps}
    if kind == "ByteLevel":
        return kind, LeadingSpace.KEPT
    if kind in ("Metaspace", "ByteFallback Metaspace", "Metaspace ByteFallback", "Metaspace ByteFallback Fuse"):
        step = by_type["Metaspace"]
        if step.get("replacement") == SPACE:
            return kind, LeadingSpace.KEPT if _prepend_scheme(step) == "never" else LeadingSpace.FIRST_TOKEN
    if kind.removesuffix(" Strip") == "Replace ByteFallback Fuse":
        replace, strip = by_type["Replace"], by_type.get("Strip")
        is_usual = replace.get("pattern") == {"String": SPACE} and replace.get("content") == " "
        if is_usual and (strip is None or _strips(strip) == (" ", 0, 0)):
            return kind, LeadingSpace.KEPT
        if is_usual and strip is not None and _strips(strip) == (" ", 1, 0):
            return kind, LeadingSpace.ONE
    raise TokenizerError(f"tokenizer.json has a decoder ({shown(kind or decoder)}) that is not supported")


def _prepend_scheme(step: Mapping[str, object]) -> object:
    """Return before which texts a Metaspace puts a space."""
    return step.get("prepend_scheme", "always" if step.get("add_prefix_space", True) else "never")


def _strips(step: Mapping[str, object]) -> tuple[object, object, object]:
    return step.get("content"), step.get("start"), step.get("stop")

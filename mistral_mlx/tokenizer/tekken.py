"""A tokenizer from Mistral's `tekken.json`: byte-level BPE from the ranks of the tokens.

The tokenizers library cuts text into words. A word that is not a token is merged here. The library could merge too, but
deriving the merges that it needs takes four times as long as everything here, and the user of a chat waits for it. With
tiktoken we would need one more dependency, and building its tables takes longer than it saves on a prompt of 100 kB
(docs/tokenizers.md).
"""

import base64
from collections.abc import Mapping
from heapq import heapify, heappop, heappush

from tokenizers import Regex, pre_tokenizers

from mistral_mlx.errors import TokenizerError, shown
from mistral_mlx.files.json import parse_json

from .base import Tokenizer, make_traits
from .detokenizer import ByteLevelDetokenizer
from .settings import TokenizerSettings
from .versions import NEEDED, SCHEMA_SETTING, Efforts

NAME = "tekken.json"
MAX_BYTES = 32 * 1024 * 1024  # real ones have 15 to 20 MB
MAX_PUNCTUATION = 1_300_000  # real ones have 1.1 million; this bounds the memory that parsing takes
# Every tekken.json of Mistral has this pattern. An unknown pattern might take forever.
TEKKEN_PATTERN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
FILE_VERSIONS = ("v3", "v7", "v11", "v13", "v15")
EFFORTS = ("none", "minimal", "low", "medium", "high", "xhigh", "max")  # mistral-common's ReasoningEffort
# The first ids if the file does not list them: in versions up to v7 (mistral-common).
DEFAULT_SPECIAL = (
    "<unk> <s> </s> [INST] [/INST] [AVAILABLE_TOOLS] [/AVAILABLE_TOOLS] [TOOL_RESULTS] [/TOOL_RESULTS] [TOOL_CALLS]"
    " [IMG] <pad> [IMG_BREAK] [IMG_END] [PREFIX] [MIDDLE] [SUFFIX] [SYSTEM_PROMPT] [/SYSTEM_PROMPT] [TOOL_CONTENT]"
).split()


class TekkenTokenizer(Tokenizer):
    """The first ids are the special tokens; an ordinary token has the id rank + their number."""

    def __init__(self, document: Mapping[str, object], settings: TokenizerSettings) -> None:
        config = document.get("config")
        if not isinstance(config, dict):
            raise _damaged("config", config)
        version = config.get("version")
        if not isinstance(version, str) or version not in FILE_VERSIONS:
            raise TokenizerError(f"{NAME} is of version {shown(version)}; supported are {', '.join(FILE_VERSIONS)}")
        if config.get("pattern") != TEKKEN_PATTERN:
            raise TokenizerError(f"{NAME} has the pattern {shown(config.get('pattern'))}, which is not supported")
        n_special = _count(config, "default_num_special_tokens", most=100_000)
        vocab_size = _count(config, "default_vocab_size", most=10_000_000)
        control = _special_tokens(document.get("special_tokens"), n_special, version)
        builder = document.get("model_settings_builder")
        super().__init__(
            make_traits(
                settings,
                vocab_size=vocab_size,
                control=control,
                own_bos=control["<s>"],
                own_eos=control["</s>"],
                add_bos=True,
                version=version,
                efforts=_efforts(builder) if version == "v15" else None,
                takes_schema=version == "v15" and isinstance(builder, dict) and builder.get(SCHEMA_SETTING) is not None,
            )
        )
        self._ids = _ordinary_tokens(document.get("vocab"), n_special, vocab_size)
        self._tokens = [*[None] * n_special, *self._ids]  # in the order of their ids
        self._split = pre_tokenizers.Split(Regex(TEKKEN_PATTERN), "isolated")

    def detokenizer(self, *, continues: bool = False) -> ByteLevelDetokenizer:
        return TekkenDetokenizer(self._tokens)

    def piece(self, token_id: int) -> bytes | None:
        return self._tokens[token_id]

    def _encode_plain(self, text: str) -> list[int]:
        ids: list[int] = []
        known: dict[str, list[int]] = {}
        for word, _ in self._split.pre_tokenize_str(text):
            if word not in known:
                known[word] = self._word(word.encode())
            ids += known[word]
        return ids

    def _encode_after(self, text: str) -> list[int]:
        return self._encode_plain(text)

    def _spell(self, text: str) -> list[int]:
        return [self._ids[bytes([byte])] for byte in text.encode()]

    def _word(self, word: bytes) -> list[int]:
        """Return the ids of a word: its own, or those of its parts, joined while two make a token.

        The pair with the lowest id is joined first, and the leftmost one of several. `end[i]` is where the part that
        begins at i ends, or 0 if no part begins there; `before[i]` is where the part before it begins. Takes
        O(n log n).
        """
        ids = self._ids
        if word in ids:
            return [ids[word]]
        end, before = [*range(1, len(word) + 1), 0], list(range(-1, len(word)))
        pairs = ((ids.get(word[i : i + 2]), i, i + 2) for i in range(len(word) - 1))
        queue = [(token_id, i, j) for token_id, i, j in pairs if token_id is not None]
        heapify(queue)
        while queue:
            _, start, stop = heappop(queue)
            middle = end[start]
            if not middle or end[middle] != stop:
                continue  # one of the two was joined with another part before
            end[start], end[middle], before[stop] = stop, 0, start
            for i, j in ((before[start], stop), (start, end[stop])):
                if i >= 0 and j and (token_id := ids.get(word[i:j])) is not None:
                    heappush(queue, (token_id, i, j))
        return [ids[word[i:j]] for i, j in enumerate(end) if j]


class TekkenDetokenizer(ByteLevelDetokenizer):
    """Ends a character at a control token: no character extends across one."""

    def add(self, token_id: int) -> str:
        return self.flush() if self.bytes_of(token_id) is None else super().add(token_id)


def parse_tekken(text: str) -> dict[str, object]:
    """Return the object in a tekken.json. Raises TokenizerError if it is invalid or too large."""
    if sum(map(text.count, "[{:,")) > MAX_PUNCTUATION:
        raise TokenizerError(f"{NAME} has more entries than any vocabulary; it is damaged")
    return parse_json(text, name=NAME, error=TokenizerError)


def _damaged(key: str, value: object) -> TokenizerError:
    return TokenizerError(f"{NAME} has {shown(value)} as {key}; it is damaged, download it again")


def _count(config: Mapping[str, object], key: str, *, most: int) -> int:
    value = config.get(key)
    if type(value) is not int or not 0 < value <= most:
        raise _damaged(key, value)
    return value


def _special_tokens(entries: object, n_special: int, version: str) -> dict[str, int]:
    """Return {text: id} of all special tokens; an id without a name is called <SPECIAL_id>."""
    names: dict[int, str] = {}
    if entries is None and version in ("v3", "v7"):
        names.update(enumerate(DEFAULT_SPECIAL))
    elif not isinstance(entries, list):
        raise _damaged("special_tokens", entries)
    else:
        for entry in entries:
            rank, text = (entry.get("rank"), entry.get("token_str")) if isinstance(entry, dict) else (None, None)
            if type(rank) is not int or rank in names or not isinstance(text, str) or not text:
                raise _damaged("a special token", entry)
            names[rank] = text
    if sorted(names) != list(range(len(names))) or len(names) > n_special:
        raise TokenizerError(f"the ids of the special tokens in {NAME} do not run from 0 to at most {n_special - 1}")
    control = {names.get(i, f"<SPECIAL_{i}>"): i for i in range(n_special)}
    if len(control) != n_special:
        raise TokenizerError(f"{NAME} has two special tokens of the same name; it is damaged")
    for text in ("<s>", "</s>", *NEEDED[version]):
        if text not in control:
            raise TokenizerError(f"{NAME} is of version {version} and has no {text} token; it is damaged")
    return control


def _efforts(builder: object) -> Efforts | None:
    """Return the efforts that the settings of a v15 file allow; None if they have no effort."""
    if not isinstance(builder, dict):
        raise _damaged("model_settings_builder", builder)
    entry = builder.get("reasoning_effort")
    if entry is None:
        return None
    values, default = (entry.get("values"), entry.get("default")) if isinstance(entry, dict) else (None, None)
    if not isinstance(values, list) or default not in values or any(value not in EFFORTS for value in values):
        raise _damaged("reasoning_effort", entry)
    return Efforts(tuple(values), str(default))


def _ordinary_tokens(entries: object, n_special: int, vocab_size: int) -> dict[bytes, int]:
    """Return {token: id} of the tokens that are text, without those past `vocab_size`."""
    count = vocab_size - n_special
    if not isinstance(entries, list) or not 256 <= count <= len(entries):
        found = f"{len(entries):,} tokens" if isinstance(entries, list) else shown(entries)
        raise TokenizerError(f"{NAME} has {found} in its vocabulary and {count} by its config; it is damaged")
    ids: dict[bytes, int] = {}
    for rank, entry in enumerate(entries[:count]):
        try:
            is_next = type(entry["rank"]) is int and entry["rank"] == rank
            token = base64.b64decode(entry["token_bytes"], validate=True)
        except (TypeError, KeyError, ValueError) as error:
            raise _damaged(f"token {rank}", entry) from error
        if not is_next or not token or token in ids or (rank < 256 and token != bytes([rank])):
            raise _damaged(f"token {rank}", entry)
        ids[token] = n_special + rank
    return ids

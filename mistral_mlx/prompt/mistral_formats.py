"""Mistral's own chat formats v1, v2, v3 and v7, written as ids; they equal mistral-common's.

The system prompt goes where mistral-common puts it: into the first user message for v1, into the *last* one for v2 and
v3, into a block of its own for v7. So for v2 and v3 every new turn changes the ids of the turn before, if there is a
system prompt; a session then evaluates the prompt again from there, or from the beginning once its window has wrapped.
"""

from dataclasses import replace

from mistral_mlx.errors import TokenizerError
from mistral_mlx.tokenizer.base import Tokenizer

from .messages import JOINED, ChatMessage, joined

FORMATS = ("v1", "v2", "v3", "v7")


def encode_v1_to_v3(tokenizer: Tokenizer, turns: list[ChatMessage], version: str) -> list[int]:
    system = joined([turn.content for turn in turns if turn.role == "system"])
    turns = [turn for turn in turns if turn.role != "system"]
    if turns[0].role != "user":
        turns.insert(0, ChatMessage("user", ""))
    users = [index for index, turn in enumerate(turns) if turn.role == "user"]
    place = users[0] if version == "v1" else users[-1]
    if system:
        turns[place] = replace(turns[place], content=system + JOINED + turns[place].content)
    ids = [_required(tokenizer.bos_id, "bos")]
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            ids += _assistant(tokenizer, turn, is_last=index + 1 == len(turns), strip=version != "v1")
        elif version == "v1":
            ids += tokenizer.encode(f"[INST] {turn.content} [/INST]")
        else:
            ids += _between(tokenizer, "[INST]", turn.content, "[/INST]")
    return ids


def encode_v7(tokenizer: Tokenizer, turns: list[ChatMessage]) -> list[int]:
    ids = [_required(tokenizer.bos_id, "bos")]
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            ids += _assistant(tokenizer, turn, is_last=index + 1 == len(turns), strip=True)
        elif turn.role == "user":
            ids += _between(tokenizer, "[INST]", turn.content, "[/INST]")
        else:
            ids += _between(tokenizer, "[SYSTEM_PROMPT]", turn.content, "[/SYSTEM_PROMPT]")
    return ids


def _assistant(tokenizer: Tokenizer, turn: ChatMessage, *, is_last: bool, strip: bool) -> list[int]:
    content = turn.content.rstrip(" ") if strip else turn.content
    ids = list(turn.ids) or tokenizer.encode(content)
    return ids if is_last else [*ids, _required(tokenizer.eos_id, "eos")]


def _between(tokenizer: Tokenizer, begin: str, content: str, end: str) -> list[int]:
    return [tokenizer.control[begin], *tokenizer.encode(content), tokenizer.control[end]]


def _required(token_id: int | None, name: str) -> int:
    if token_id is None:
        raise TokenizerError(f"this tokenizer has no {name} token, which every chat format needs")
    return token_id

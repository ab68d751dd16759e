"""The messages of a conversation, checked, and joined where a chat format wants it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mistral_mlx.errors import OptionError, shown

ROLES = ("system", "user", "assistant")
JOINED = "\n\n"  # between messages that are made into one


@dataclass(frozen=True)
class ChatMessage:
    """A checked message; `ids` only where they were generated."""

    role: str
    content: str
    ids: tuple[int, ...] = ()


def checked(messages: Sequence[Mapping[str, object]]) -> list[ChatMessage]:
    turns = [_checked_turn(message, number) for number, message in enumerate(messages, start=1)]
    turns = [turn for turn in turns if turn.role != "assistant" or turn.content or turn.ids]
    if not turns:
        raise OptionError("there are no messages; give at least one user message")
    if turns[-1].role == "system":
        raise OptionError("the last message is a system message; put a user message behind it")
    return turns


def _checked_turn(message: Mapping[str, object], number: int) -> ChatMessage:
    if not isinstance(message, Mapping):
        raise OptionError(f"message {number} is {shown(message)}; give a mapping with role and content")
    role, content, ids = message.get("role"), message.get("content"), message.get("ids") or ()
    if role not in ROLES or not isinstance(role, str):
        raise OptionError(f"message {number} has the role {shown(role)}; use one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise OptionError(f"the content of message {number} is {shown(content)}; give a text")
    if ids and role != "assistant":
        raise OptionError(f"message {number} has ids and the role {role}; only assistant messages have ids")
    if not isinstance(ids, Sequence) or not all(isinstance(i, int) and i >= 0 for i in ids):
        raise OptionError(f"the ids of message {number} are {shown(ids)}; give a list of token ids")
    return ChatMessage(role, content, tuple(ids))


def merged(turns: list[ChatMessage]) -> list[ChatMessage]:
    """Join neighbours of the same role, but for system messages, which v7 keeps apart, and generated ids."""
    merged: list[ChatMessage] = []
    for turn in turns:
        before = merged[-1] if merged else None
        mergeable = turn.role != "system" and not turn.ids
        if before is not None and before.role == turn.role and mergeable and not before.ids:
            merged[-1] = replace(before, content=joined([before.content, turn.content]))
        else:
            merged.append(turn)
    return merged


def joined(texts: Sequence[str]) -> str:
    return JOINED.join(text for text in texts if text)

"""Checks the messages of a saved session, which are untrusted data."""

from pathlib import Path

from mistral_mlx.errors import shown
from mistral_mlx.generation.channels import Parts, split_answer
from mistral_mlx.tokenizer.choose import Tokenizer

from .saved_document import ROLES, damaged
from .turns import Message

KEYS = {"role", "content", "ids", "reasoning", "interrupted"}


def checked_messages(value: object, path: Path, vocab_size: int, tokenizer: Tokenizer) -> list[Message]:
    """Return the messages in `value`. Raises SessionError, naming the file `path`, for anything else.

    Ids must decode to the content: the model reads the text that the user sees.
    """
    if not isinstance(value, list):
        raise damaged(path, f"its messages are {shown(value)}")
    return [_checked(message, number, path, vocab_size, tokenizer) for number, message in enumerate(value, start=1)]


def checked_ids(value: object, path: Path, vocab_size: int) -> list[int]:
    """Return the token ids in `value`, one at least. Raises SessionError for anything else."""
    if not isinstance(value, list) or not value or not all(type(i) is int and 0 <= i < vocab_size for i in value):
        raise damaged(path, f"ids are {shown(value)}, not ids of a vocabulary of {vocab_size:,} tokens")
    return value


def _checked(message: object, number: int, path: Path, vocab_size: int, tokenizer: Tokenizer) -> Message:
    if not isinstance(message, dict) or not {"role", "content"} <= set(message) <= KEYS:
        raise damaged(path, f"message {number} is {shown(message)}")
    role, content = message["role"], message["content"]
    if role not in ROLES or not isinstance(content, str):
        raise damaged(path, f"message {number} has the role {shown(role)} and the content {shown(content)}")
    if role != "assistant" and set(message) != {"role", "content"}:
        raise damaged(path, f"message {number} is no answer and has {shown(sorted(message))}")
    if "interrupted" in message and message["interrupted"] is not True:
        raise damaged(path, f"message {number} has interrupted {shown(message['interrupted'])}")
    reasoning = message.get("reasoning", "")
    if not isinstance(reasoning, str) or ("reasoning" in message and not reasoning):
        raise damaged(path, f"message {number} has the reasoning {shown(reasoning)}")
    if "ids" in message:
        ids = checked_ids(message["ids"], path, vocab_size)
        # Earlier versions saved the reasoning in the content.
        if split_answer(tokenizer, ids) != Parts(content, reasoning) and (
            reasoning or tokenizer.decode(ids) != content
        ):
            raise damaged(path, f"the ids of message {number} are not those of its content")
    return message

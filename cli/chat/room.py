"""Whether the context has room for a message, counted before it is sent, and what to do if it has not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mistral_mlx.errors import ContextError, counted
from mistral_mlx.session.turns import user_message

if TYPE_CHECKING:
    from mistral_mlx.session.session import Session

MAKE_ROOM = "/compact, /undo or /clear makes room"
SHORTEN = "shorten the message, or take its files away with /read -"


def size(text: str, session: Session | None) -> str:
    """Return the size of `text`: in tokens, too, once there is a `session`."""
    n_characters = counted(len(text), "character")
    return n_characters if session is None else f"{counted(n_tokens(session, text), 'token')}, {n_characters}"


def n_tokens(session: Session, text: str) -> int:
    """Return how many tokens `text` has, without those of the chat format."""
    return len(session.tokenizer.encode(text))


def n_with(session: Session, text: str) -> int:
    """Return how many tokens the conversation has with the message `text`, before it is answered."""
    return len(session.encode([*session.messages, user_message(text)]))


def is_too_long(session: Session, text: str) -> bool:
    """Return whether the message `text` does not fit the context, whatever is forgotten for it."""
    limit = session.model.args.context_limit
    return limit is not None and len(session.encode([user_message(text)])) > limit


def overflow(session: Session, text: str) -> str | None:
    """Return why the message `text` will be refused, and what to do; None if the context has room for it."""
    limit = session.model.args.context_limit
    if limit is None:
        return None
    if is_too_long(session, text):
        n = counted(len(session.encode([user_message(text)])), "token")
        return f"the next message has {n} already, the model's context {limit:,}; {SHORTEN}"
    n_whole = n_with(session, text) if session.on_overflow == "stop" else 0
    if n_whole <= limit:
        return None
    n = counted(n_whole, "token")
    return f"the conversation has {n} with the next message, the model's context {limit:,}; {MAKE_ROOM}"


def in_a_chat(error: ContextError, session: Session, text: str | None) -> ContextError:
    """Return `error` with what to do in a chat; `text` is the message that was asked, if it was one."""
    return ContextError(error.what, SHORTEN if text is not None and is_too_long(session, text) else MAKE_ROOM)

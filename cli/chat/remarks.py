"""The remarks after an answer of the chat: how it ended, and limits that the conversation has passed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mistral_mlx.cli.answers.remarks import untrained_position
from mistral_mlx.errors import counted

if TYPE_CHECKING:
    from mistral_mlx.generation.response import GenerationResponse
    from mistral_mlx.session.session import Session


@dataclass
class Remarks:
    """Those of one conversation; a limit that it has passed is remarked once."""

    n_dropped: int = 0  # turns
    said_wrapped: bool = False
    said_untrained: bool = False

    def dropped(self, n: int) -> str:
        """Return the remark that `n` turns were dropped, and count them."""
        self.n_dropped += n
        return f"the context is full: the oldest {'turn was' if n == 1 else f'{n:,} turns were'} dropped"

    def after(self, session: Session, last: GenerationResponse, *, max_tokens: int) -> Iterator[str]:
        """Yield the remarks on the last answer of `session`, whose `last` piece says how it ended."""
        args, reason = session.model.args, last.finish_reason
        if reason == "stop" and last.generation_tokens == 1 and not (last.text or last.reasoning):
            yield "the model wrote nothing"
        elif reason is None:
            yield "interrupted; the part above stays in the conversation, and /continue goes on with it"
        elif reason == "length":
            yield f"stopped at {counted(max_tokens, 'token')} (--max-tokens); /continue goes on"
        elif reason == "context":
            yield f"the context of {args.context_limit:,} tokens is full; /compact, /undo or /clear makes room"
        if session.wrapped and not self.said_wrapped:
            self.said_wrapped = True
            windows = [w for w in args.sliding_window if w is not None]
            yield (
                f"the conversation is now longer than the window of {min(windows):,} tokens: what lies before it "
                "reaches the model only indirectly"
            )
        if session.n_tokens > args.max_position_embeddings and not self.said_untrained:
            self.said_untrained = True
            yield untrained_position(session.n_tokens, args.max_position_embeddings)

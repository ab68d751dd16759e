"""The first answer of a chat: its system prompt is likely to come again, and is taken from the disk or kept there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from mistral_mlx.cli.answers.beginning import Beginning
from mistral_mlx.cli.answers.sources import another
from mistral_mlx.session.turns import user_message

if TYPE_CHECKING:
    from mistral_mlx.generation.answer import AnswerOptions
    from mistral_mlx.session.kept import KeptPrompts
    from mistral_mlx.session.session import Answer, Session


def first_answer(
    session: Session, text: str, options: AnswerOptions, kept: Callable[[], KeptPrompts] | None, model: str
) -> Answer:
    """Yield the answer of a new `session` to `text`, as its `ask` does; `model` is what the user calls the model."""
    beginning = Beginning(
        session.timeline,
        session.encode([user_message(text)]),
        kept,
        lambda: session.encode([user_message(another(text))]),
    )
    yield from session.ask(text, replace(options, snapshot_at=beginning.n_kept))
    beginning.keep(model)

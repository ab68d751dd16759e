"""What the line at the bottom of a chat tells, at the prompt and while an answer is written."""

from typing import TYPE_CHECKING

from . import toolbar

if TYPE_CHECKING:
    from .chat import Chat

STOPS = "Ctrl-C stops"


def at_the_prompt(chat: "Chat", columns: int) -> str:
    """Return the line below the prompt."""
    return toolbar.line(_status(chat), columns)


def while_answering(chat: "Chat", columns: int) -> str:
    """Return the line below an answer that is written: how to stop it, or what is typed for the next message."""
    if typed := chat.keyboard.text:
        line = typed.replace("\n", " ↵ ")
        return f" next: {line[-(columns - 8) :]}"
    if chat.waits_for:
        return f" {chat.waits_for} · {STOPS}"[:columns]
    return toolbar.line(_status(chat)._replace(hint=STOPS), columns)


def _status(chat: "Chat") -> toolbar.Status:
    sampling, n_files = chat.settings.short(), len(chat.attachments)
    if not chat.loading.ended or chat.loading.error:
        return toolbar.Status(chat.setup.opener.name, state="loading", sampling=sampling, n_files=n_files)
    use = chat.session.context
    speed = chat.last.generation_tps if chat.last else None
    return toolbar.Status(
        chat.model,
        used=use.used,
        limit=use.limit,
        is_window=use.is_window,
        tokens_per_s=speed,
        sampling=sampling,
        n_files=n_files,
        is_unsaved=chat.saving.error is not None,
    )

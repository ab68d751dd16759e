"""`/compact`: the oldest turns become a summary, which the model writes; nothing of them is lost."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import TYPE_CHECKING

from mistral_mlx.cli.terminal.thoughts import Thoughts
from mistral_mlx.errors import OptionError, counted, shown

from .answering import show_answer, writer
from .chat import Chat
from .command import MAX_DIGITS

if TYPE_CHECKING:
    from mistral_mlx.generation.answer import AnswerOptions
    from mistral_mlx.progress import Progress
    from mistral_mlx.session.compact import Compaction
    from mistral_mlx.session.session import Answer
    from mistral_mlx.session.turns import Message

N_KEPT = 2  # turns


class _Summary:
    """Writes a summary as reasoning is written: dim and on stderr, as it is no answer."""

    def __init__(self, chat: Chat) -> None:
        self._output = writer(chat.status, plain=chat.settings.plain)
        self.screen = self._output.screen
        self._thoughts = Thoughts(hidden=chat.notes.quiet, screen=self.screen)

    def write(self, text: str) -> None:
        self._thoughts.write(text)

    def erase(self) -> None:
        self._output.erase()

    def finish(self) -> None:
        self._thoughts.end()
        if self.screen is not None:
            self._output.finish()


def compact(chat: Chat, rest: str) -> None:
    """Summarize all turns but the last ones, as many as `rest` says. Raises OptionError, or ContextError."""
    from mistral_mlx.session.compact import Compaction

    compaction = Compaction.of(chat.session, _n_kept(rest))
    if compaction is None:
        chat.say("there is nothing to summarize before the turns that stay (/compact N keeps the last N)")
        return
    chat.edit = None  # its number counts from the end
    n_before = chat.session.context.used
    chat.say("a summary takes the place of the oldest turns; Ctrl-C changes nothing:")
    if not _is_written(chat, compaction) or compaction.result is None:
        chat.notes.always("there is no whole summary; nothing is changed")
        return
    _replace(chat, compaction.result, n_before)


def taken_back(chat: Chat) -> bool:
    """Undo the last `compact`, if nothing has changed since; return whether that was so."""
    if chat.compacted is None or chat.session.messages != chat.compacted[1]:
        return False
    chat.session.messages, chat.compacted = list(chat.compacted[0]), None
    chat.save()
    chat.say(f"the conversation is whole again: {counted(chat.session.context.used, 'token')}")
    return True


def _n_kept(rest: str) -> int:
    if rest and (not rest.isdecimal() or len(rest) > MAX_DIGITS):
        raise OptionError(f"{shown(rest)} is no number of turns; /compact N keeps the last N as they are")
    return int(rest or N_KEPT)


def _is_written(chat: Chat, compaction: Compaction) -> bool:
    """Show the summary while it is written; return whether it came to its end."""
    last = show_answer(
        lambda progress: _apart(compaction.summarize(_options(chat, compaction.max_tokens, progress))),
        _Summary(chat),
        Thoughts(hidden=True, sign=not chat.notes.quiet),
        entered=chat.entered,
        on_start=lambda: None,
        on_progress=chat.wait_for,
        on_piece=lambda piece: chat.wait_for(""),
        notes=chat.notes,
    )
    if last is not None and last.finish_reason in ("length", "context"):
        chat.say(f"the summary was cut at {counted(last.generation_tokens, 'token')}")
    return last is not None and last.finish_reason is not None


def _options(chat: Chat, max_tokens: int, progress: Progress) -> AnswerOptions:
    from mistral_mlx.generation.answer import AnswerOptions

    return AnswerOptions(
        sampler=chat.settings.sampler(),  # a new one: what follows is as random as without a summary
        max_tokens=max_tokens,
        draft=chat.settings.draft,
        drafter=chat.opened.drafter,
        progress=progress,
    )


def _apart(pieces: Answer) -> Answer:
    """Yield the pieces of several summaries with a blank line between them."""
    has_ended = False
    with closing(pieces):
        for piece in pieces:
            yield replace(piece, text="\n\n" + piece.text) if has_ended else piece
            has_ended = piece.finish_reason is not None


def _replace(chat: Chat, messages: list[Message], n_before: int) -> None:
    """Let the conversation be `messages`, unless they are no shorter; the whole one is saved beside it."""
    session, whole = chat.session, chat.session.messages
    session.messages = messages
    n_after = session.context.used
    session.messages = whole
    if n_after >= n_before:
        chat.notes.always(f"the summary would not make it shorter ({n_before:,} -> {n_after:,}); nothing is changed")
        return
    name = chat.store.save_copy(session, chat.as_saved(), "-full")
    session.messages, chat.compacted = messages, (whole, list(messages))
    chat.save()
    back = "/undo brings the whole conversation back" + (f", which is saved as {name}" if name else "")
    chat.say(f"{counted(n_before, 'token')} -> {counted(n_after, 'token')}; {back}")

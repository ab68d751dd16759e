"""Shows a conversation again, on stderr: all of it, its last turns, or only what was said last when it is resumed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.size import columns
from mistral_mlx.cli.terminal.streams import write_error
from mistral_mlx.cli.terminal.style import BOLD, DIM, sgr
from mistral_mlx.cli.terminal.thoughts import Thoughts
from mistral_mlx.errors import counted, shown
from mistral_mlx.session.turns import count_turns, is_answer, turn_start

from .input import is_terminal

if TYPE_CHECKING:
    from mistral_mlx.cli.terminal.notes import Notes
    from mistral_mlx.session.session import Session
    from mistral_mlx.session.turns import Message

N_BEGIN, N_END = 6, 4  # rows of a long message that are shown when a session is resumed
LOST = "the answer to the last message was lost; /retry asks for it again"


def show_history(session: Session, notes: Notes, *, n: int | None, plain: bool, reasoning: bool) -> None:
    """Write the last `n` turns, or everything with the system prompt before it; `plain` is without Markdown."""
    messages = session.messages
    if n is None and session.system:
        from mistral_mlx.prompt.official import spelled

        write_error(f"system prompt: {_safe(spelled(session.system))}\n")
    if not messages:
        notes.say("nothing has been said yet")
        return
    is_whole = n is None or n >= count_turns(messages)
    for message in messages if is_whole else messages[turn_start(messages, n or 1) :]:
        if is_answer(message):
            _put_answer(message, plain=plain or not _has_styles(), reasoning=reasoning)
        else:
            question = _behind_prompt(str(message["content"]))
            write_error(f"{sgr(question, BOLD) if _has_styles() else question}\n")
        _empty_row()
        if message.get("interrupted"):
            notes.always("interrupted")
    if is_lost(messages):
        notes.always(LOST)


def show_last_turn(session: Session, notes: Notes) -> None:
    """Write the last turn, dim and without the middle of what is long, and what became of its answer."""
    messages = session.messages
    turn = messages[turn_start(messages, 1) :] if count_turns(messages) else messages
    for message in turn:
        content = str(message["content"]) or str(message.get("reasoning", ""))
        rows = _rows(content.strip("\n") if is_answer(message) else _behind_prompt(content))
        _empty_row()
        write_error("".join(f"{sgr(row, DIM) if _has_styles() else row}\n" for row in _shortened(rows)))
    _empty_row()
    if is_lost(messages):
        notes.say(LOST)
    elif turn and turn[-1].get("interrupted"):
        notes.say("it was interrupted; /continue goes on with it")


def recap(session: Session, model: str, *, with_last: bool) -> str:
    """Return one line about a session that is resumed; `with_last` adds what was said last, and by whom."""
    messages = session.messages
    text = f"resumed, {counted(count_turns(messages), 'turn')} with {shown(model)}"
    if not with_last or not messages:
        return text
    if is_lost(messages):
        return f"{text}; last message: {_beginning(messages[-1])}; {LOST}"
    return f"{text}; last answer: {_beginning(messages[-1])}"


def is_lost(messages: Sequence[Message]) -> bool:
    """Return whether the last message has no answer: the program was killed before it came."""
    return bool(messages) and messages[-1]["role"] == "user"


def _put_answer(message: Message, *, plain: bool, reasoning: bool) -> None:
    text = str(message["content"])
    thoughts = Thoughts(hidden=not reasoning)
    thoughts.write(str(message.get("reasoning", "")))
    thoughts.end()
    if plain:
        write_error(_safe(text) + "\n" if text else "")
        return
    from mistral_mlx.cli.terminal.markdown import MarkdownStream

    stream = MarkdownStream(write_error, columns)
    stream.write(text)
    stream.finish()


def _behind_prompt(text: str) -> str:
    """Return a message of the user as it was typed."""
    return "> " + _safe(text).replace("\n", "\n… ")


def _rows(text: str) -> list[str]:
    """Return `text` in the rows that the terminal has for it."""
    from mistral_mlx.cli.terminal.row import Row

    written = list[str]()
    row = Row(written.append, lambda: columns() - 1)
    for line in inert(text).expandtabs(4).split("\n"):
        row.words(line)
        row.end()
    row.flush("")
    return "".join(written).split("\n")[:-1]


def _shortened(rows: list[str]) -> list[str]:
    left_out = len(rows) - N_BEGIN - N_END
    if left_out <= 1:
        return rows
    return [*rows[:N_BEGIN], f"… {left_out:,} more lines; /history shows all", *rows[-N_END:]]


def _beginning(message: Message) -> str:
    """Return the beginning of a message on one line: of what was thought, if nothing else was written."""
    content, reasoning = (" ".join(str(message.get(key, "")).split()) for key in ("content", "reasoning"))
    return shown(content) if content or not reasoning else f"(thinking) {shown(reasoning)}"


def _has_styles() -> bool:
    return is_terminal() and sys.stderr.isatty()


def _safe(text: str) -> str:
    return inert(text) if sys.stderr.isatty() else text


def _empty_row() -> None:
    """Set questions and answers apart, as while they were written."""
    if _has_styles():
        write_error("\n")

"""The commands of the chat for sessions, attachments, the editor, the clipboard and export."""

import datetime
import os
import shlex
import tempfile
from collections.abc import Callable
from pathlib import Path

from mistral_mlx.cli.terminal.editor import edit
from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.errors import OptionError, counted, shown

from . import attachments, clipboard, room, transcript
from .chat import Chat
from .command import Command, position, show
from .commands import spelled


def _save(chat: Chat, rest: str) -> None:
    chat.say(f"saved as {chat.saving.save_as(rest or None, chat.session, chat.as_saved())}")
    chat.store.autosave = True  # "from now on"


def _load(chat: Chat, rest: str) -> None:
    if not rest:
        raise OptionError("which session? /sessions lists them")
    chat.resume(chat.store.existing(rest))


def _sessions(chat: Chat, rest: str) -> None:
    sessions = chat.store.found()
    if not any(sessions):
        chat.say("no session is saved yet")
    for info in sessions.whole:
        mark, turns = "*" if info.name == chat.store.name else " ", counted(info.turns, "turn")
        nbytes = gigabytes(info.nbytes + info.cache_nbytes)
        unkept = f", cache not kept: {gigabytes(info.unkept_nbytes)}" if info.unkept_nbytes else ""
        facts = f"{mark} {short_time(info.saved_at.astimezone())} {turns:>9} {nbytes:>8}"
        show(f"{facts} {shown(info.name)} ({shown(info.model)}{unkept})")
    for bad in sessions.damaged:
        show(f"  {'damaged':<30} {shown(bad.name)} ({bad.reason})")


def short_time(moment: datetime.datetime) -> str:
    """Return a date and time in 11 characters: the year only if it is not this one."""
    is_now = moment.year == datetime.datetime.now(moment.tzinfo).year
    return moment.strftime("%m-%d %H:%M" if is_now else "%Y-%m-%d ")


def _read(chat: Chat, rest: str) -> None:
    try:
        names = shlex.split(rest)
    except ValueError as error:
        raise OptionError(f"{shown(rest)} cannot be split into names: {error}") from error
    if not names:
        raise OptionError("which file? /read FILE... puts files into the next message")
    if names == ["-"]:
        chat.attachments = []
        chat.say("no file goes with the next message")
        return
    _attach(chat, [attachments.read(name) for name in names])


def _glob(chat: Chat, rest: str) -> None:
    if not rest:
        raise OptionError("which files? /glob PATTERN, such as src/**/*.py, puts files into the next message")
    found, left_out = attachments.find(rest)
    for reason in left_out:
        chat.say(f"left out: {reason}")
    _attach(chat, found)


def _attach(chat: Chat, found: list[attachments.Attachment]) -> None:
    files, replaced = attachments.added(chat.attachments, found)
    attachments.check_size(files)
    chat.attachments, session = files, chat.loaded
    for attachment in {attachment.path: attachment for attachment in found}.values():
        again = ", read again" if attachment.path in replaced else ""
        what = f"{shown(attachment.name, limit=200)}, {room.size(attachment.text, session)}"
        chat.say(f"goes with the next message{again}: {what}")
    remark = None if session is None else room.overflow(session, attachments.with_files("", files))
    if remark is not None:
        chat.notes.always(remark)


def _editor(chat: Chat, rest: str) -> None:
    if not chat.is_interactive:
        raise OptionError("/editor needs a terminal")
    with chat.keyboard.released():
        text, fault = _edited(rest, chat.remember)
    if fault is not None:
        chat.returned = text
        raise OptionError(f"{fault}; {'what it saved is kept' if text else 'nothing is sent'}")
    if text.strip():
        show(f"> {text.rstrip()}")
        chat.ask(text.rstrip("\n"))
    else:
        chat.say("nothing was saved in the editor, and nothing is sent")


def _edited(text: str, remember: Callable[[str], None]) -> tuple[str, OptionError | None]:
    """Let the user edit `text`; return what the editor saved, nothing if it saved nothing, and why it failed.

    What it saved goes to `remember` also when a signal ends the program meanwhile.
    """
    with tempfile.TemporaryDirectory() as folder:
        file, fault = Path(folder) / "message.md", None
        file.write_text(text, encoding="utf-8")
        os.utime(file, ns=(0, 0))  # so that saving the text as it was can be told from leaving
        try:
            edit(file)
        except OptionError as error:
            fault = error
        finally:
            has_saved = file.is_file() and file.stat().st_mtime_ns
            saved = file.read_text(encoding="utf-8", errors="replace") if has_saved else ""
            if saved.strip():
                remember(saved.rstrip("\n"))
        return saved, fault


def _copy(chat: Chat, rest: str) -> None:
    answers = [str(message["content"]) for message in chat.session.messages if message["role"] == "assistant"]
    n = position(rest, "answer", len(answers))
    how = clipboard.copy(answers[-n])
    chat.say(f"copied by {how}: {counted(len(answers[-n]), 'character')}")


def _export(chat: Chat, rest: str) -> None:
    if not rest:
        raise OptionError("to which file? /export FILE.md writes the conversation")
    path = Path(os.path.expanduser(rest))
    transcript.write_new(path, transcript.written(chat.model, spelled(chat.session.system), chat.session.messages))
    chat.say(f"the conversation is in {shown(str(path), limit=200)}")


FILES = {
    "save": Command("[NAME]", "save the conversation, as NAME from now on", _save),
    "load": Command("NAME", "continue a saved conversation", _load, "sessions"),
    "sessions": Command("", "list the saved conversations", _sessions),
    "read": Command("FILE...", "add text files to the next message; - removes them", _read, "paths"),
    "glob": Command("PATTERN", "add the text files that match to the next message", _glob, "paths"),
    "editor": Command("[TEXT]", "write the next message in $VISUAL or $EDITOR", _editor),
    "copy": Command("[N]", "copy the last answer, or the N-th from the end, to the clipboard", _copy),
    "export": Command("FILE.md", "write the conversation as Markdown", _export, "paths"),
}

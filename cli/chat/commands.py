"""The commands of the chat that change or show the conversation."""

import json
from typing import TYPE_CHECKING

from mistral_mlx.cli.answers.constraints import Wanted
from mistral_mlx.cli.answers.remarks import statistics
from mistral_mlx.cli.models import registry
from mistral_mlx.errors import OptionError, counted, shown

from .attachments import with_files
from .chat import Chat
from .command import Command, Leave, facts, position, show
from .compact import compact, taken_back
from .history import show_history
from .opening import system_of
from .room import n_with, size

if TYPE_CHECKING:
    from mistral_mlx.prompt.official import SystemContent
    from mistral_mlx.session.session import Session


def spelled(system: "SystemContent | None") -> str:
    """Return a system prompt as a text; the engine is imported when the model is."""
    from mistral_mlx.prompt.official import spelled as spell

    return spell(system)


def chosen_cache(session: "Session") -> str | None:
    """Return what was chosen of the cache in words; None if nothing was."""
    from mistral_mlx.model.cache_options import DEFAULT, CacheOptions

    choice = CacheOptions.of(session.model.args)
    return None if choice == DEFAULT else str(choice)


def _exit(chat: Chat, rest: str) -> None:
    raise Leave


def _clear(chat: Chat, rest: str) -> None:
    chat.leave()
    chat.session.clear()
    chat.begin_anew()
    chat.say("the conversation is cleared")


def _system(chat: Chat, rest: str) -> None:
    if rest:
        chat.session.set_system(None if rest == "-" else system_of(rest, chat.model, chat.session))
        chat.save()
    system = spelled(chat.session.system)
    chat.say(f"system prompt: {system}" if system else "there is no system prompt")


def _schema(chat: Chat, rest: str) -> None:
    if rest:
        chat.bind(None if rest == "-" else Wanted(rest).constraint())
    schema = None if chat.constraint is None else chat.constraint.schema
    chat.say("answers are free" if schema is None else f"answers follow the schema {json.dumps(schema)}")


def _undo(chat: Chat, rest: str) -> None:
    if not rest and taken_back(chat):
        return
    removed = chat.session.undo(position(rest, "turn"))
    chat.edit = None  # its number counts from the end
    chat.save()
    chat.say(
        f"taken back: {shown(' '.join(removed[0].split()))}"
        + (f" and {len(removed) - 1:,} more" if len(removed) > 1 else "")
    )


def _retry(chat: Chat, rest: str) -> None:
    chat.stream(chat.session.retry, is_again=True)


def _edit(chat: Chat, rest: str) -> None:
    asked = [str(message["content"]) for message in chat.session.messages if message["role"] == "user"]
    n = position(rest, "message", len(asked))
    chat.edit = (n, asked[-n])
    chat.say("the next message replaces it and removes the turns after it; Ctrl-C changes nothing")


def _continue(chat: Chat, rest: str) -> None:
    messages = chat.session.messages
    chat.stream(chat.session.continue_answer, after=str(messages[-1]["content"]) if messages else "")


def _history(chat: Chat, rest: str) -> None:
    show_history(
        chat.session,
        chat.notes,
        n=position(rest, "turn") if rest else None,
        plain=chat.settings.plain or chat.constraint is not None,
        reasoning=chat.settings.reasoning == "show",
    )


def _set(chat: Chat, rest: str) -> None:
    key, _, value = rest.partition(" ")
    if key in ("", "all"):
        rows = chat.settings.rows(changed=not key)
        show(facts(rows) if rows else "  all settings have their defaults; /set all shows them")
    elif not value.strip():
        show(f"  {chat.settings.line(key)}")
    else:
        chat.apply(chat.settings.changed(key, value.strip()))
        chat.say(chat.settings.line(key))
        chat.save()


def _show(chat: Chat, rest: str) -> None:
    session, args = chat.session, chat.session.model.args
    known = {
        "model": chat.model,
        "chat format": session.template or session.tokenizer.version or "the model's template",
        "trained for": f"{args.max_position_embeddings:,} tokens",
        "system prompt": spelled(session.system) or "none",
        **({} if chat.constraint is None else {"schema": json.dumps(chat.constraint.schema)}),
        "session": (chat.store.name or "not saved yet") + ("" if chat.store.autosave else "; /save NAME saves it"),
    }
    show(facts([(name, shown(value, limit=500)) for name, value in known.items()]))
    show(facts(chat.settings.rows(changed=True) or [("settings", "the defaults; /set all shows them")]))


def _context(chat: Chat, rest: str) -> None:
    use, n_turns = chat.session.context, sum(message["role"] == "user" for message in chat.session.messages)
    if use.limit is None:
        room = ""
    elif use.is_window:
        room = f", in a window of {use.limit:,} that rolls on"
    else:
        room = f" of {use.limit:,} ({100 * use.fraction:.0f} %), {max(0, use.limit - use.used):,} left"
    show(f"  {use.used:,} tokens{room}; {counted(n_turns, 'turn')}, {chat.remarks.n_dropped:,} dropped")
    if chosen := chosen_cache(chat.session):
        show(f"  the cache keeps {chosen}")
    for attachment in chat.attachments:
        show(
            f"  goes with the next message: {shown(attachment.name, limit=200)}, {size(attachment.text, chat.session)}"
        )
    if chat.attachments:
        n = n_with(chat.session, with_files("", chat.attachments))
        show(f"  with {counted(len(chat.attachments), 'file')} the conversation has {counted(n, 'token')}")


def _tokens(chat: Chat, rest: str) -> None:
    if not rest:
        raise OptionError("which text? /tokens TEXT counts and shows its tokens")
    tokenizer = chat.session.tokenizer
    ids = tokenizer.encode(rest)
    pieces = [tokenizer.decode(ids[: n + 1])[len(tokenizer.decode(ids[:n])) :] for n in range(len(ids))]
    show(f"  {counted(len(ids), 'token')}: " + " ".join(f"{i}={p!r}" for i, p in zip(ids, pieces, strict=True)))


def _stats(chat: Chat, rest: str) -> None:
    if chat.last is None:
        raise OptionError("there is no answer yet")
    show(f"  {statistics(chat.last, chat.sampler.seed, chat.last.finish_reason or 'interrupt')}")


def _model(chat: Chat, rest: str) -> None:
    if rest:
        chat.switch(rest)
        return
    show(f"  {chat.model} answers; registered: {', '.join(sorted(registry.registered())) or 'none'}")


def _plain(chat: Chat, rest: str) -> None:
    chat.apply(chat.settings.changed("plain", rest or ("off" if chat.settings.plain else "on")))
    chat.save()
    chat.say("answers are shown as they are written" if chat.settings.plain else "answers are shown as Markdown")


CONVERSATION = {
    "exit": Command("", "leave; so does Ctrl-D", _exit),
    "clear": Command("", "begin a new conversation; the system prompt stays", _clear),
    "system": Command("[TEXT]", "set the system prompt, '-' for none, @model for the model's", _system),
    "schema": Command(
        "[SCHEMA]", "answer with JSON that follows FILE or 'name, age int'; '-' ends it", _schema, "paths"
    ),
    "undo": Command("[N]", "remove the last turn, or the last N; or take /compact back", _undo),
    "retry": Command("", "answer the last message again", _retry),
    "edit": Command("[N]", "change your last message, or the N-th from the end", _edit),
    "continue": Command("", "continue an answer that was interrupted or too short", _continue),
    "compact": Command("[N]", "have all turns but the last 2, or N, summarized", compact),
    "history": Command("[N]", "show the conversation again, or its last N turns", _history),
    "set": Command(
        "[KEY [VALUE]]", "show or change a setting, '-' for its default; /set all shows all", _set, "settings"
    ),
    "show": Command("", "show the model, the system prompt and the settings", _show),
    "context": Command("", "show how full the context is", _context),
    "tokens": Command("TEXT", "count and show the tokens of a text", _tokens),
    "stats": Command("", "show the counts and speeds of the last answer", _stats),
    "model": Command("[NAME]", "continue with another model; without NAME list them", _model, "models"),
    "plain": Command("[on|off]", "switch between Markdown and plain text", _plain),
}

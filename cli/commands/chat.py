"""The options of ``chat``; heavy imports are inside."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.models.home import home
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.sampling import with_sampling
from mistral_mlx.cli.statuses import status_of
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import ModelError, OptionError, shown

from .offers import chat_names

if TYPE_CHECKING:
    from mistral_mlx.cli.chat.store import Store

EXAMPLES = """\
mistral-mlx chat -m demo
mistral-mlx chat -m demo --system 'Be brief.' --dry-multiplier 0.8
"""


@with_sampling
def chat(
    context: typer.Context,
    model: shared.Model = None,
    system: shared.System = None,
    template: shared.Template = None,
    reasoning_effort: shared.ReasoningEffort = None,
    reasoning: Annotated[
        str, shared.output_option(metavar="show|hide", help="Show the reasoning of the model, or not.")
    ] = "show",
    max_tokens: shared.MaxTokens = shared.MAX_TOKENS,
    stop: shared.Stop = None,
    stats: shared.Stats = False,
    plain: Annotated[
        bool, shared.output_option("--plain", help="Show answers as plain text, without Markdown styles.")
    ] = False,
    on_overflow: Annotated[
        str, typer.Option(metavar="drop-turns|stop", help="When the context is full: forget the oldest turns, or stop.")
    ] = "drop-turns",
    resume: Annotated[bool, typer.Option("--resume", help="Continue the saved session NAME, or the last one.")] = False,
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            autocompletion=chat_names,
            help="A model, the same as --model; after --resume, a session.",
        ),
    ] = None,
    last: Annotated[bool, typer.Option("--continue", "-c", help="Continue the last saved session.")] = False,
    save: Annotated[
        bool | None,
        typer.Option(
            "--save/--no-save",
            help="Save the conversation after every turn; from a pipe, a new one only with --save.",
            show_default=False,
        ),
    ] = None,
    history: Annotated[
        bool, typer.Option(help="Keep a history of your messages in a file that only you can read.")
    ] = True,
    quiet: shared.Quiet = False,
    cache: shared.Cache = True,
    cache_limit: shared.CacheLimit = shared.CACHE_LIMIT,
    device: shared.Device = "auto",
    threads: shared.Threads = 0,
    draft: shared.Draft = shared.DRAFT,
    draft_model: shared.DraftModel = None,
    exact: shared.Exact = False,
    kv_bits: shared.KvBits = shared.KV_BITS,
    window: shared.Window = None,
    sinks: shared.Sinks = shared.SINKS,
    pipeline: shared.Pipeline = False,
    ignore_memory: shared.IgnoreMemory = False,
    **sampling: Any,
) -> None:
    """Talk to a model; /help inside lists the commands."""
    from mistral_mlx.cli.chat import opening, session_models, start
    from mistral_mlx.cli.chat.settings import NAMES, ChatOptions
    from mistral_mlx.cli.chat.store import Store, sessions_folder
    from mistral_mlx.cli.models.kept import kept_prompts
    from mistral_mlx.cli.options.answer import from_plain
    from mistral_mlx.model.cache_options import CacheOptions

    notes = Notes(quiet=quiet, in_chat=True)
    notes.is_plain = plain
    kept = kept_prompts(notes, cache_limit) if cache else None
    store = Store(
        sessions_folder(),
        autosave=save if save is not None else resume or last or sys.stdin.isatty(),
        cache_limit=int(cache_limit * 1e9) if cache else 0,
    )
    is_named = shared.is_given(context, "model") or bool(name and not resume)  # elsewhere it is only the usual one
    if name and not resume:
        model = _named(shared.named_model(context, name, model), store)
    if resume or last:
        resumes, model = session_models.chosen(store, name if resume else None, model if is_named else None)
    else:
        resumes, model = None, shared.chosen_model(model, notes)
    registry.resolve(model)  # a wrong name need not wait for the prompt
    shown_how = {"on_overflow": on_overflow, "stats": stats, "plain": plain, "reasoning": reasoning}
    ends = {"max_tokens": max_tokens, "stop": stop, "reasoning_effort": reasoning_effort or "", "draft": draft}
    plain_values = {**sampling, **ends, **shown_how}
    settings = ChatOptions(**from_plain(ChatOptions, plain_values))
    failed = start.run(
        opening.ChatSetup(
            opening.Opener(
                model,
                device,
                threads,
                exact,
                ignore_memory,
                notes,
                draft_model,
                CacheOptions(window, sinks, kv_bits),
                pipeline,
            ),
            store,
            settings,
            frozenset(key for key in NAMES if shared.is_given(context, key)),
            system,
            template,
            resumes,
            kept,
        ),
        history=home() / "history" if history else None,
    )
    if failed and not sys.stdin.isatty():  # a script has to know
        raise typer.Exit(status_of(failed))


def _named(model: str | None, store: "Store") -> str | None:
    """Return a model that an argument names. Raises ModelError, with what else it may mean, if there is none."""
    try:
        registry.resolve(model)
    except ModelError as error:
        if " " in str(model):
            raise OptionError(
                f"{shown(model)} is no model; a message is typed in the chat, or is a prompt: mistral-mlx complete"
            ) from error
        if model in store.names():
            raise ModelError(f"{shown(model)} is no model but a session: mistral-mlx chat --resume {model}") from error
        raise
    return model

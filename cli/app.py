"""The command line: parses, calls, and turns every error into one line and a documented exit status.

Heavy imports stand inside the commands: ``--help`` needs neither MLX nor a tokenizer.
"""

import os
import sys
from typing import Annotated, Any, NoReturn

import typer

from mistral_mlx.cli.commands.batch import batch
from mistral_mlx.cli.commands.complete import complete
from mistral_mlx.cli.commands.completion import completion
from mistral_mlx.cli.commands.convert import convert
from mistral_mlx.cli.commands.evaluate import evaluate
from mistral_mlx.cli.commands.models import models
from mistral_mlx.cli.commands.tokens import tokens
from mistral_mlx.cli.options.help import Application
from mistral_mlx.cli.options.sampling import with_sampling
from mistral_mlx.cli.terminal.streams import Interrupted, OutputError, note, prepare_streams, raise_on_signals
from mistral_mlx.errors import (
    ContextError,
    ConversionError,
    MistralMLXError,
    ModelError,
    OptionError,
    SessionError,
    shown,
)
from mistral_mlx.version import __version__

from .answers import prompt_templates
from .commands import complete as complete_command
from .commands import config
from .commands import convert as convert_command
from .commands import evaluate as evaluate_command
from .models import registry
from .options import shared

# docs/cli.md lists them; those of signals are in `terminal`.
INTERNAL, USAGE, MODEL, CONTEXT, OUTPUT = 1, 2, 3, 4, 5
STATUS: list[tuple[type[Exception], int]] = [
    (OptionError, USAGE),
    (ModelError, MODEL),
    (SessionError, MODEL),
    (ContextError, CONTEXT),
    (ConversionError, OUTPUT),
    (OutputError, OUTPUT),
    (OSError, OUTPUT),
]
MLX_PACKAGE = "mlx" if sys.platform == "darwin" else "'mlx[cpu]'"

app = Application(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def run() -> NoReturn:
    """Run the program and exit with its status."""
    raise_on_signals()
    prepare_streams()
    found: dict[str, object] = {}  # by `common`
    try:
        status = app(prog_name="mistral-mlx", standalone_mode=False, obj=found)
    except (Exception, Interrupted) as error:
        if found.get("debug") or os.environ.get("MISTRAL_MLX_DEBUG"):
            raise
        status = _report(error)
    sys.exit(status)


def status_of(error: BaseException) -> int:
    """Return the documented exit status for an error."""
    if isinstance(error, Interrupted):
        return error.status
    if isinstance(error, typer.TyperException):
        return error.exit_code
    return next((status for kind, status in STATUS if isinstance(error, kind)), INTERNAL)


def _report(error: Exception | Interrupted) -> int:
    """Say what went wrong in one line, and return the exit status for it."""
    if isinstance(error, Interrupted):
        note("interrupted; nothing half-written is left")
    elif isinstance(error, typer.TyperException):
        note(f"error: {error.format_message()} (see --help)")
    elif isinstance(error, ImportError):
        note(f"error: the installation is incomplete ({error}); run: pip install --force-reinstall {MLX_PACKAGE}")
    elif isinstance(error, OSError):
        note(f"error: {error.strerror or error}" + (f": {error.filename}" if error.filename else ""))
    elif isinstance(error, MistralMLXError | OutputError):
        note(f"error: {error}")
    else:
        note(f"error: this is a bug: {type(error).__name__}: {error} (--debug before the command shows where)")
    return status_of(error)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        from mistral_mlx import kernels

        python, mlx = sys.version.split()[0], metadata.version("mlx")
        print(f"mistral-mlx {__version__} (mlx {mlx}, Python {python}, kernels: {kernels.names()})")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and the kernels.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Mistral models in the terminal: chat, completion and conversion, on Apple silicon and on any CPU."""
    context.ensure_object(dict)["debug"] = debug
    if context.invoked_subcommand is None:
        print(context.get_help())


app.command(epilog=complete_command.EXAMPLES)(complete)
app.command()(batch)
app.add_typer(prompt_templates.app, name="templates")


@app.command(epilog="mistral-mlx chat -m demo\nmistral-mlx chat -m demo --system 'Be brief.' --dry-multiplier 0.8")
@with_sampling
def chat(
    context: typer.Context,
    model: shared.Model = None,
    system: shared.System = None,
    template: shared.Template = None,
    max_tokens: shared.MaxTokens = shared.MAX_TOKENS,
    stop: shared.Stop = None,
    stats: shared.Stats = False,
    plain: Annotated[
        bool, shared.output_option("--plain", help="Show answers as they are written, not as Markdown.")
    ] = False,
    on_overflow: Annotated[
        str, typer.Option(metavar="drop-turns|stop", help="When the context is full: forget the oldest turns, or stop.")
    ] = "drop-turns",
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the saved session NAME, or the last.")] = False,
    name: Annotated[str | None, typer.Argument(metavar="[NAME]", help="The session of --resume.")] = None,
    last: Annotated[bool, typer.Option("--continue", "-c", help="Go on with the last saved session.")] = False,
    save: Annotated[bool, typer.Option(help="Save the conversation after every turn.")] = True,
    history: Annotated[bool, typer.Option(help="Remember what was typed, in a file only you can read.")] = True,
    quiet: shared.Quiet = False,
    device: shared.Device = "auto",
    threads: shared.Threads = 0,
    ignore_memory: shared.IgnoreMemory = False,
    **sampling: Any,
) -> None:
    """Talk to a model; /help inside lists the commands."""
    from mistral_mlx.cli.chat.settings import NAMES, ChatOptions
    from mistral_mlx.cli.chat.store import Store
    from mistral_mlx.cli.options.answer import from_plain

    from .chat import opening, start

    if name and not resume:
        raise OptionError(f"{shown(name)} is no option; a model is named with --model, a session with --resume")
    store = Store(registry.home() / "sessions", autosave=save)
    resumes = store.existing(name) if resume or last else None
    if model or not resumes:
        registry.resolve(model)  # a wrong name need not wait for the prompt
    shown_how = {"on_overflow": on_overflow, "stats": stats, "plain": plain}
    plain_values = {**sampling, "max_tokens": max_tokens, "stop": stop, **shown_how}
    settings = ChatOptions(**from_plain(ChatOptions, plain_values))
    failed = start.run(
        opening.ChatSetup(
            opening.Opener(model, device, threads, ignore_memory, quiet),
            store,
            settings,
            frozenset(key for key in NAMES if shared.is_given(context, key)),
            system,
            template,
            resumes,
        ),
        history=registry.home() / "history" if history else None,
    )
    if failed and not sys.stdin.isatty():  # a script has to know
        raise typer.Exit(status_of(failed))


app.command(epilog=convert_command.EXAMPLES)(convert)


@app.command(
    epilog="mistral-mlx export demo demo.gguf\n"
    "mistral-mlx export ~/models/Mistral-7B-Instruct-v0.3 mistral.gguf --outtype q8_0"
)
def export(
    context: typer.Context,
    name: shared.ModelName = None,
    target: Annotated[str | None, typer.Argument(metavar="FILE", help="The GGUF file to write.")] = None,
    model: shared.TypedModel = None,
    outtype: Annotated[
        str,
        shared.weights_option(
            metavar="auto|f32|f16|bf16|q8_0|q4_1",
            help="How matrices are stored; auto carries packed ones over where GGUF has their form.",
        ),
    ] = "auto",
    overwrite: shared.Overwrite = False,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
) -> None:
    """Write a model as a GGUF file, for llama.cpp and what is built on it.

    Weights packed to 2, 3, 4 or 5 bits, and to 8 bits by convert from a GGUF file, are the very same in it.
    """
    from mistral_mlx.cli.reports.convert import progress_bar
    from mistral_mlx.convert.export.gguf_export import export_gguf

    from .reports import export as command

    model, target = shared.model_and_target(context, name, target, model)
    path = registry.resolve(model)
    if target is None:
        raise OptionError("which file? Give the GGUF file to write")
    with progress_bar(quiet=quiet) as progress:
        report = export_gguf(path, target, outtype=outtype, overwrite=overwrite, progress=progress)
    command.show(report, as_json=as_json, quiet=quiet)


@app.command(epilog="mistral-mlx info demo")
def info(
    context: typer.Context,
    name: shared.ModelName = None,
    model: shared.Model = None,
    as_json: shared.Json = False,
) -> None:
    """Show what a model is, and what running it takes."""
    from .reports import info as command

    command.show(command.describe(registry.resolve(shared.named_model(context, name, model))), as_json=as_json)


@app.command(epilog="mistral-mlx bench demo -p 512 -n 128 --depth 4096")
def bench(
    context: typer.Context,
    name: shared.ModelName = None,
    model: shared.Model = None,
    n_prompt: shared.NPrompt = shared.N_PROMPT,
    n_gen: shared.NGen = shared.N_GEN,
    depth: shared.Depth = shared.DEPTH,
    repeats: shared.Repeats = shared.REPEATS,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
    device: shared.Device = "auto",
    threads: shared.Threads = 0,
    ignore_memory: shared.IgnoreMemory = False,
) -> None:
    """Measure how fast a model reads a prompt and writes an answer here."""
    from mistral_mlx.cli.models.opening import use_device, use_threads
    from mistral_mlx.measure.benchmark import Workload

    from .reports import bench as command

    workload = Workload(n_prompt=n_prompt, n_gen=n_gen, depth=depth, repeats=repeats)
    model = shared.named_model(context, name, model)
    use_device(device)
    use_threads(threads, quiet=quiet)
    measurement = command.run(registry.resolve(model), workload, ignore_memory=ignore_memory, quiet=quiet)
    command.show(model or "", workload, measurement, as_json=as_json)


app.command("eval", epilog=evaluate_command.EXAMPLES)(evaluate)


@app.command(epilog="mistral-mlx pull demo")
def pull(
    name: Annotated[str, typer.Argument(metavar="demo", help="The model to fetch; there is one so far.")],
    quiet: shared.Quiet = False,
) -> None:
    """Fetch a small real chat model and register it under its name."""
    from mistral_mlx.cli.models.pull import NAME, pull_demo

    if name != NAME:
        raise OptionError(f"there is no model {name!r} to pull; {NAME!r} is")
    pull_demo(quiet=quiet)


app.command(
    epilog="mistral-mlx models\nmistral-mlx models --json | jq -r '.[].name'",
)(models)
app.command(
    epilog="mistral-mlx tokens -m demo 'Hello there'\nmistral-mlx tokens -m demo --chat --system 'Be brief.' Hi"
)(tokens)
app.add_typer(config.app, name="config")
app.command(epilog="source <(mistral-mlx completion bash)\nmistral-mlx completion fish | source")(completion)

"""The command line: registers the commands, and turns every error into one line and a documented exit status.

Heavy imports are inside the commands: ``--help`` needs neither MLX nor a tokenizer.
"""

import gc
import os
import sys
import threading
from typing import Annotated, NoReturn

import typer

from mistral_mlx.distributed.launched import launched
from mistral_mlx.errors import MistralMLXError
from mistral_mlx.version import __version__

from .commands import (
    batch,
    bench,
    cache,
    chat,
    complete,
    completion,
    config,
    convert,
    doctor,
    evaluate,
    export,
    info,
    models,
    pull,
    sessions,
    templates,
    tokens,
)
from .models.home import home_error
from .options.command import Application
from .options.following import is_told_by_rank_0, leave_word_to_rank_0, let_followers_end, sharing_streams
from .options.other_programs import our_spelling
from .statuses import Status, status_of
from .terminal.notes import Notes
from .terminal.signals import Interrupted, ignore_signals, raise_on_signals
from .terminal.streams import OutputError, prepare_streams, write_raw

ANSWERS, MODELS, MEASURES, PROGRAM = "Answers", "Models", "Measurements", "This program"  # sections of --help
MLX_PACKAGE = "mlx" if sys.platform == "darwin" else "'mlx[cpu]'"

app = Application(
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "token_normalize_func": our_spelling},
)


def run() -> NoReturn:
    """Run the program and exit with its status."""
    raise_on_signals()
    prepare_streams()
    found: dict[str, object] = {}  # by `common`
    me, why = None, ""
    try:
        me = launched()
        if me is not None:
            sharing_streams()
        status = app(prog_name="mistral-mlx", standalone_mode=False, obj=found) or 0
    except (Exception, Interrupted) as error:
        if me is not None:
            ignore_signals()
        if found.get("debug") or os.environ.get("MISTRAL_MLX_DEBUG"):
            raise
        status, why = _report(error)
    if me is not None:
        ignore_signals()  # after an error, and after none
    let_followers_end(status, why)
    _leave(status)


def _leave(status: int | None) -> NoReturn:
    """End the process.

    Where a daemon thread still loads a model, Python must not be taken down: before 3.14 it ends such a thread in the
    middle of MLX, which then aborts the process.
    """
    if any(thread.daemon for thread in threading.enumerate()):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status or 0)
    gc.freeze()  # at its end Python would look for unused cycles among all objects once more, a tenth of a second
    sys.exit(status)


def _report(error: Exception | Interrupted) -> tuple[int, str]:
    """Write what went wrong in one line; return the exit status for it, and the line."""
    notes, text = Notes(), _described(error)
    write = notes.always if isinstance(error, Interrupted) else notes.error
    if is_told_by_rank_0(error):
        leave_word_to_rank_0(error)
    elif text:
        write(text)
    return _status(error), text


def _status(error: Exception | Interrupted) -> int:
    if isinstance(error, Interrupted):
        return error.status
    if isinstance(error, typer.TyperException):
        return error.exit_code
    return Status.OUTPUT if isinstance(error, OutputError) else status_of(error)


def _described(error: Exception | Interrupted) -> str:
    if isinstance(error, Interrupted):
        return error.remark
    if isinstance(error, typer.TyperException):
        context = getattr(error, "ctx", None)
        command = "mistral-mlx" if context is None else context.command_path
        return f"{error.format_message().removesuffix('.')} (see {command} --help)"
    if isinstance(error, ImportError):
        return f"the installation is incomplete ({error}); run: pip install --force-reinstall {MLX_PACKAGE}"
    if isinstance(error, OSError):
        return home_error(error) or f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
    if isinstance(error, MistralMLXError | OutputError):
        return str(error)
    where = "--debug before the command shows where, 'mistral-mlx doctor' what else a report needs"
    return f"this is a bug: {type(error).__name__}: {error} ({where})"


def _version(wanted: bool) -> None:
    if wanted:
        from importlib import metadata

        from mistral_mlx import kernels

        python, mlx = sys.version.split()[0], metadata.version("mlx")
        write_raw(f"mistral-mlx {__version__} (mlx {mlx}, Python {python}, kernels: {kernels.names()})\n")
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
        new_here = "New here? Type 'mistral-mlx pull demo', then 'mistral-mlx chat -m demo'."
        write_raw(f"{context.get_help()}\n\n{new_here}\n")


app.command(epilog=complete.EXAMPLES, rich_help_panel=ANSWERS)(complete.complete)
app.command(rich_help_panel=ANSWERS)(batch.batch)
app.add_typer(templates.app, name="templates", rich_help_panel=ANSWERS)
app.add_typer(cache.app, name="cache", rich_help_panel=ANSWERS)
app.command(epilog=chat.EXAMPLES, rich_help_panel=ANSWERS)(chat.chat)
app.add_typer(sessions.app, name="sessions", rich_help_panel=ANSWERS)
app.command(epilog=convert.EXAMPLES, rich_help_panel=MODELS)(convert.convert)
app.command(epilog=export.EXAMPLES, rich_help_panel=MODELS)(export.export)
app.command(epilog=info.EXAMPLES, rich_help_panel=MODELS)(info.info)
app.command(epilog=bench.EXAMPLES, rich_help_panel=MEASURES)(bench.bench)
app.command("eval", epilog=evaluate.EXAMPLES, rich_help_panel=MEASURES)(evaluate.evaluate)
app.command(epilog=pull.EXAMPLES, rich_help_panel=MODELS)(pull.pull)
app.add_typer(models.app, name="models", epilog=models.EXAMPLES, rich_help_panel=MODELS)
app.command(epilog=tokens.EXAMPLES, rich_help_panel=MEASURES)(tokens.tokens)
app.add_typer(config.app, name="config", epilog=config.EXAMPLES, rich_help_panel=PROGRAM)
app.command(epilog=doctor.EXAMPLES, rich_help_panel=PROGRAM)(doctor.doctor)
app.command(epilog=completion.EXAMPLES, rich_help_panel=PROGRAM)(completion.completion)

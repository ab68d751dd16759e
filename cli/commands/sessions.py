"""The command ``sessions`` and its subcommands; nothing here loads a model."""

import os
from pathlib import Path
from typing import Annotated

import typer

from mistral_mlx.cli.chat.store import Store, sessions_folder
from mistral_mlx.cli.models.home import check_home
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.command import Subcommands
from mistral_mlx.cli.statuses import Status
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.errors import OptionError, counted, shown

from .offers import session_names

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=session_names, help="The session.")]

app = Subcommands()


@app.callback(invoke_without_command=True)
def sessions(context: typer.Context) -> None:
    """List, show, search and remove saved chats.

    chat --resume continues one of them. Without a subcommand they are listed.
    """
    if context.invoked_subcommand is None:
        list_sessions()


@app.command("list")
def list_sessions(as_json: shared.Json = False) -> None:
    """List the sessions: date, turns, sizes, model."""
    from mistral_mlx.cli.reports import sessions as report
    from mistral_mlx.session.saved_document import find_sessions

    check_home()
    report.show(find_sessions(sessions_folder()), as_json=as_json)


@app.command("show")
def show_session(
    name: Name,
    n_turns: Annotated[int | None, typer.Option("-n", metavar="N", help="Only the last N turns.")] = None,
) -> None:
    """Print a conversation as Markdown."""
    from mistral_mlx.cli.reports import sessions as report

    write_text(report.text_of(_path(name), n_turns=n_turns))


@app.command("search")
def search_sessions(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for; capitals do not matter.")],
) -> None:
    """Print the lines that hold a text; status 1 if none does."""
    from mistral_mlx.cli.reports import sessions as report

    if not text:
        raise OptionError("which text? 'mistral-mlx sessions search TEXT' prints the lines that hold it")
    if not report.search(sessions_folder(), text):
        raise typer.Exit(Status.NOTHING_FOUND)


@app.command("export")
def export_session(
    name: Name,
    file: Annotated[
        str | None, typer.Argument(metavar="FILE.md", help="A new file; without it, or with -, standard output.")
    ] = None,
) -> None:
    """Write a conversation as Markdown, as /export does."""
    from mistral_mlx.cli.chat.transcript import write_new
    from mistral_mlx.cli.reports import sessions as report

    text = report.text_of(_path(name))
    if file in (None, "-"):
        write_text(text)
    else:
        path = Path(os.path.expanduser(str(file)))
        write_new(path, text)
        Notes().always(f"the conversation is in {shown(str(path), limit=200)}")


@app.command("rename")
def rename_session(
    old: Annotated[str, typer.Argument(metavar="OLD", autocompletion=session_names, help="The session.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Its new name.")],
) -> None:
    """Give a session another name."""
    _store().rename(old, new)
    Notes().always(f"{shown(old)} is called {shown(new)} now")


@app.command("rm")
def remove_sessions(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME", autocompletion=session_names, help="The sessions.")
    ] = None,
    caches: Annotated[
        bool,
        typer.Option(
            "--caches",
            allow_from_autoenv=False,
            help="Remove only the caches, of all sessions if none is named; the texts stay.",
        ),
    ] = False,
) -> None:
    """Remove sessions, or only their caches."""
    store = _store()
    if caches:
        nbytes = store.remove_caches(names or store.names())
        Notes().always(f"{gigabytes(nbytes)} of caches removed; the texts stay, and are read again")
    elif names:
        store.remove(names)
        Notes().always(f"{counted(len(names), 'session')} removed: {', '.join(map(shown, names))}")
    else:
        raise OptionError("which session? 'mistral-mlx sessions' lists them; --caches alone removes all caches")


def _store() -> Store:
    return Store(sessions_folder())


def _path(name: str) -> Path:
    return _store().path(_store().existing(name))

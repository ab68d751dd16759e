"""The command ``templates`` and its subcommands; heavy imports are inside."""

import sys
from typing import Annotated

import typer

from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.errors import OptionError

app = typer.Typer(help="List, show and edit prompt templates, which complete --prompt-template takes.")


@app.command("list")
def list_templates() -> None:
    """List the templates and what they say they are for."""
    from mistral_mlx.cli.answers import prompt_templates

    names = prompt_templates.names()
    for name in names:
        write_text(f"{name}\t{prompt_templates.description(name)}\n")
    if not names and sys.stderr.isatty():
        Notes().always("there are no templates; 'mistral-mlx templates edit NAME' makes one")


@app.command("show")
def show_template(name: Annotated[str, typer.Argument(help="The template.")]) -> None:
    """Show the file of a template."""
    from mistral_mlx.cli.answers import prompt_templates

    prompt_templates.load_template(name)
    write_text(prompt_templates.path_of(name).read_text(encoding="utf-8"))


@app.command("edit")
def edit_template(name: Annotated[str, typer.Argument(help="The template; it is made if it does not exist.")]) -> None:
    """Open a template in $VISUAL or $EDITOR, and check it afterwards."""
    from mistral_mlx.cli.answers import prompt_templates
    from mistral_mlx.cli.terminal.editor import edit

    file = prompt_templates.path_of(name)
    is_new = not file.exists()
    if is_new:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(prompt_templates.SKELETON.format(name=name), encoding="utf-8")
    try:
        edit(file)
    except OptionError:
        if is_new:
            file.unlink(missing_ok=True)
        raise
    prompt_templates.load_template(name)

"""The command ``templates`` and its subcommands; heavy imports are inside."""

import sys
from typing import Annotated

import typer

from mistral_mlx.cli.options.command import Subcommands
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text

from .offers import template_names

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=template_names, help="The template.")]

app = Subcommands()


@app.callback(invoke_without_command=True)
def templates(context: typer.Context) -> None:
    """List, show, edit and remove your prompt templates.

    complete --prompt-template takes them. Without a subcommand they are listed. One that is edited and does not exist
    begins as an example.
    """
    if context.invoked_subcommand is None:
        list_templates()


@app.command("list")
def list_templates() -> None:
    """List the templates and what they say they are for."""
    from mistral_mlx.cli.answers import prompt_templates

    names = prompt_templates.names()
    for name in names:
        write_text(f"{name}\t{prompt_templates.description(name)}".rstrip("\t") + "\n")
    if not names and sys.stderr.isatty():
        Notes().always("there are no templates; 'mistral-mlx templates edit NAME' makes one")


@app.command("show")
def show_template(name: Name) -> None:
    """Show the file of a template."""
    from mistral_mlx.cli.answers import prompt_templates

    prompt_templates.load_template(name)
    write_text(prompt_templates.path_of(name).read_text(encoding="utf-8"))


@app.command("edit")
def edit_template(name: Name) -> None:
    """Open a template in $VISUAL or $EDITOR, and check it."""
    from mistral_mlx.cli.answers import prompt_templates
    from mistral_mlx.cli.terminal.editor import edit

    file = prompt_templates.path_of(name)
    if prompt_templates.edited(name, edit):
        prompt_templates.load_template(name)
        Notes().always(f'{file} is saved; use it as: mistral-mlx complete -t {name} "the input"')
    else:
        Notes().always(f"the example was not changed, so there is no template {name}")


@app.command("rm")
def remove_template(name: Name) -> None:
    """Remove a template."""
    from mistral_mlx.cli.answers import prompt_templates

    Notes().always(f"{prompt_templates.remove(name)} is removed")

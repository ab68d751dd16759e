"""What the Tab key of a shell offers besides options: sessions, templates and shells; where nothing fits, files."""

from contextlib import suppress

import typer

from mistral_mlx.cli.models.registry import model_names

SHELLS = ("bash", "zsh", "fish", "pwsh")


def chat_names(context: typer.Context) -> list[str]:
    """Return the names of the registered models, or where one is to be resumed of the sessions, the newest first."""
    return session_names() if context.params.get("resume") else model_names()


def session_names() -> list[str]:
    """Return the names of the saved sessions, the newest first."""
    from mistral_mlx.cli.chat.store import Store, sessions_folder

    with suppress(OSError):
        return Store(sessions_folder()).names()
    return []


def template_names() -> list[str]:
    """Return the names of the prompt templates."""
    from mistral_mlx.cli.answers.prompt_templates import names

    with suppress(OSError):
        return names()
    return []


def shells() -> list[str]:
    """Return the shells that have a script of completion."""
    return list(SHELLS)

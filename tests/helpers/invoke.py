"""Runs a command in this process."""

from typer.testing import CliRunner

from mistral_mlx.cli.app import app


def invoke(*args, input=""):
    """Run a command in this process; an error is raised."""
    result = CliRunner().invoke(app, list(map(str, args)), input=input)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result

"""Tiny model folders for the commands, and the settings of the program."""

import pytest
from helpers.tiny_folder import repeat_forever, write_tiny_folder

from mistral_mlx.cli.app import app


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_tiny_folder(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """A model that writes " the" until it is stopped."""
    return repeat_forever(write_tiny_folder(tmp_path_factory.mktemp("models") / "endless"))


@pytest.fixture
def _ready_stdin(monkeypatch):
    """The runner's standard input is no file, which select would ask for."""
    monkeypatch.setattr("mistral_mlx.cli.terminal.reading.select.select", lambda r, w, x, s: (r, w, x))


@pytest.fixture(scope="module")
def program():
    import typer.main

    return typer.main.get_command(app)


@pytest.fixture
def config(home):
    return home / "config.toml"

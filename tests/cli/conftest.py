"""Tiny model folders for the commands, and the settings of the program."""

import os

import pytest
from helpers.fake_hub import fake_hub
from helpers.tiny_folder import repeat_forever, write_tiny_folder

from mistral_mlx.cli.app import app
from mistral_mlx.cli.models.hub import web


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


@pytest.fixture(scope="module")
def hub_files(tmp_path_factory):
    """The files of the model org/tiny on `hub`."""
    folder = write_tiny_folder(tmp_path_factory.mktemp("tiny"))
    return {path.name: path.read_bytes() for path in folder.iterdir()} | {"README.md": b"# tiny"}


@pytest.fixture
def hub(hub_files, monkeypatch, tmp_path):
    """A hub on this machine, at HF_ENDPOINT, that nobody waits for."""
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING", "TRANSFORMERS_")) or name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.setenv("MISTRAL_MLX_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(web, "pause", lambda n: 0.0)
    with fake_hub(models={"org/tiny": dict(hub_files)}) as served:
        monkeypatch.setenv("HF_ENDPOINT", served.address)
        yield served


@pytest.fixture
def disk(monkeypatch, tmp_path):
    """Return an empty home, which has the folders of all programs."""
    for name in [name for name in os.environ if name.startswith(("HF_", "HUGGINGFACE_", "XDG_CACHE", "OLLAMA_"))]:
        monkeypatch.delenv(name)
    home = tmp_path / "user"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mistral_mlx.cli.models.ollama.OF_SERVICE", tmp_path / "none")
    return home


@pytest.fixture
def cache(disk):
    return disk / ".cache" / "huggingface" / "hub"


@pytest.fixture
def models(disk):
    """Ollama's folder."""
    return disk / ".ollama" / "models"

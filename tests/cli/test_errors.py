"""Errors are one line, with a documented status."""

import os
import subprocess
import sys

import pytest
from helpers.cli import PROGRAM, one_line, run
from helpers.tiny_folder import write_tiny_folder


def processor_seconds():
    """Return the processor time of the programs that have ended, which a loaded machine does not stretch."""
    times = os.times()
    return times.children_user + times.children_system


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["complete", "-m", "nowhere", "x"], 3, "no such model directory"),
        (["complete", "x"], 2, "which model?"),
        (["complete", "-m", "{folder}", "--temperature", "-1", "x"], 2, "temperature is -1"),
        (["complete", "-m", "{folder}", "--temperature", "nan", "x"], 2, "temperature is nan"),
        (["complete", "-m", "{folder}", "--top-p", "0", "x"], 2, "top_p is 0"),
        (["complete", "-m", "{folder}", "--max-tokens", "0", "x"], 2, "max_tokens is 0"),
        (["complete", "-m", "{folder}", "--device", "tpu", "x"], 2, "--device is 'tpu'"),
        (["complete", "-m", "{folder}", "--threads", "1025", "x"], 2, "--threads is 1025; it must be 1 to 1024, or 0"),
        (["chat", "-m", "{folder}", "--threads", "-1"], 2, "--threads is -1"),
        (["complete", "-m", "{folder}", "--template", "v9", "x"], 2, "v9"),
        (["complete", "-m", "{folder}", "--prompt-file", "nowhere"], 2, "nowhere cannot be read"),
        (["complete", "--nonsense"], 2, "--nonsense"),
        (["frobnicate"], 2, "frobnicate"),
        (["info", "nowhere"], 3, "no such model directory"),
        (["pull", "mistral"], 2, "mistral is no name of a model on a hub; give ORG/REPO"),
        (["convert", "nowhere", "{out}"], 3, "nowhere"),
        (["convert", "{folder}", "{folder}"], 5, ""),
        (["convert", "{folder}", "{out}", "--bits", "7"], 2, "bits is 7"),
    ],
)
def test_errors_are_one_line_and_a_documented_status(folder, tmp_path, args, status, said):
    before = processor_seconds()
    result = run(*(arg.format(folder=folder, out=tmp_path / "out") for arg in args))
    assert (result.returncode, result.stdout) == (status, b"")
    assert said in one_line(result.stderr)
    assert processor_seconds() - before < 5  # mostly the start of Python; build machines are slow
    assert not (tmp_path / "out").exists()


def test_a_prompt_beyond_the_context_has_its_own_status(tmp_path):
    short = write_tiny_folder(tmp_path / "short", sliding_window=None, max_position_embeddings=8)
    result = run("complete", "-m", short, "a prompt of more than eight tokens")
    assert (result.returncode, result.stdout) == (4, b"")
    assert "the model's context 8" in one_line(result.stderr)


def test_a_model_larger_than_the_memory_is_refused_unless_forced(folder):
    code = PROGRAM[2].replace(
        "; main()",
        "; from mistral_mlx.cli.models import opening; opening.available_memory = lambda: 1000; main()",
    )
    refused = subprocess.run(
        [sys.executable, "-c", code, "complete", "-m", folder, "x"], capture_output=True, stdin=subprocess.DEVNULL
    )
    assert refused.returncode == 3
    assert "are available; convert it to fewer bits, or add --ignore-memory" in one_line(refused.stderr)
    forced = subprocess.run(
        [sys.executable, "-c", code, "complete", "--ignore-memory", "-m", folder, "x"],
        capture_output=True,
        stdin=subprocess.DEVNULL,
    )
    assert forced.returncode == 0


def test_a_traceback_is_shown_only_on_request(folder):
    result = run("--debug", "complete", "-m", "nowhere", "x")
    assert b"Traceback" in result.stderr


def test_names_cannot_control_the_terminal(tmp_path):
    result = run("info", tmp_path / "\x1b[2J[bold]")
    assert b"\x1b" not in result.stderr
    assert "[bold]" in one_line(result.stderr)


@pytest.mark.parametrize(
    "line",
    [
        *("models", "models add x {folder}", "models remove x", "complete x", "complete -m x x", "pull demo"),
        *("sessions", "config", "config set seed 1"),
    ],
)
def test_a_home_that_is_no_folder_is_named_by_what_needs_it(folder, monkeypatch, tmp_path, line):
    """They used to say that nothing is there, or no more than: File exists."""
    file = tmp_path / "file"
    file.touch()
    for home, verb in ((file, "written"), (file / "home", "made")):
        monkeypatch.setenv("MISTRAL_MLX_HOME", str(home))
        result = run(*line.format(folder=folder).split())
        assert result.returncode in (3, 5)
        assert f"{home} cannot be {verb}: {file} is no folder" in one_line(result.stderr)


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_a_home_that_cannot_be_made_is_named_when_it_is_needed(folder, monkeypatch):
    monkeypatch.setenv("MISTRAL_MLX_HOME", "/proc/mine")
    said = one_line(run("models", "add", "x", folder).stderr)
    assert "/proc/mine cannot be made: " in said and "set MISTRAL_MLX_HOME to another folder" in said


def test_what_lies_elsewhere_needs_no_home(folder, monkeypatch, tmp_path):
    monkeypatch.setenv("MISTRAL_MLX_HOME", "/dev/null")
    assert run("complete", "-q", "-m", folder, "--max-tokens", "2", "x").returncode == 0
    assert run("models", "--discover").returncode == 0

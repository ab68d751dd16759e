"""A signal ends a conversion, also where the test run ignores signals."""

import os
import signal
import subprocess
import sys
import time

import pytest
from helpers.cli import interrupted, one_line, run
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx.cli.models import registry


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_conversion_that_is_ended_leaves_nothing_and_says_so(tmp_path, number):
    folder = write_tiny_folder(tmp_path / "big", num_hidden_layers=200, hidden_size=128)

    def begun():
        return any(path.name.startswith(".out") for path in tmp_path.iterdir())

    result = interrupted(["convert", folder, tmp_path / "out"], number, after=begun)
    assert result.returncode == 128 + number
    assert "interrupted; nothing half-written is left" in one_line(result.stderr)
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_verification_that_is_ended_leaves_the_model_with_its_name_and_says_so(tmp_path, number):
    """It used to say that nothing is left, the folder had no name, and the same command said that it exists."""
    folder, out, text = write_tiny_folder(tmp_path / "big", num_hidden_layers=100), tmp_path / "out", tmp_path / "text"
    text.write_text("Once upon a time there was a king who had no crown. " * 2000)  # which take long
    args = ["convert", folder, out, "--bits", "8", "--verify-text", text, "--name", "mine"]
    result = interrupted(args, number, after=out.exists)
    said = one_line(result.stderr)
    assert result.returncode == 128 + number
    assert said == f"mistral-mlx: interrupted; {out} is written, only its verification was stopped"
    assert registry.registered() == {"mine": out.resolve()}
    assert run("info", "mine").returncode == 0


def test_what_writes_no_file_speaks_of_none(tmp_path):
    """It used to say that nothing half-written is left, whatever was interrupted."""
    os.mkfifo(tmp_path / "text")
    folder = write_tiny_folder(tmp_path / "tiny")
    begun = time.monotonic()
    args = ["eval", "-m", folder, "--text", tmp_path / "text"]
    result = interrupted(args, signal.SIGINT, after=lambda: time.monotonic() - begun > 2)
    assert (result.returncode, one_line(result.stderr)) == (130, "mistral-mlx: interrupted")


def test_ctrl_c_in_the_editor_is_the_editors(tmp_path, home):
    """It used to end the program, and the editor with it."""
    editor = tmp_path / "editor"
    editor.write_text('#!/bin/sh\ntrap "echo caught >&2" INT\nkill -INT $PPID $$\nsleep 0.2\necho "seed = 1" > "$1"\n')
    editor.chmod(0o700)
    result = run("config", "edit", "--editor", str(editor))
    assert (result.returncode, result.stderr.decode()) == (0, f"caught\nmistral-mlx: {home / 'config.toml'} is fine\n")


def test_programs_that_tests_start_obey_signals():
    code = "import signal; print(signal.SIG_IGN in map(signal.getsignal, (signal.SIGINT, signal.SIGHUP)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60).stdout == b"False\n"


def test_the_tests_pass_where_signals_are_ignored():
    """Under nohup, or with `&` in a script, programs ignored the signals that tests sent to them, and tests hung."""
    test = f"{__file__}::{test_programs_that_tests_start_obey_signals.__name__}"
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", test]
    result = subprocess.run(["sh", "-c", 'trap "" INT HUP; exec "$@"', "sh", *command], capture_output=True, timeout=60)
    assert result.returncode == 0, result.stdout.decode()

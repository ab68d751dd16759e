"""The commands of other programs."""

import re

import pytest
from helpers.cli import one_line, run

from mistral_mlx.cli.options.other_programs import OF_MODELS, OF_OTHERS


@pytest.mark.parametrize("verb", OF_OTHERS)
def test_commands_of_other_programs_are_answered_with_ours(verb):
    result = run(verb, "mistral")
    assert (result.returncode, result.stdout) == (2, b"")
    assert f"there is no command {verb}; {OF_OTHERS[verb]}" in one_line(result.stderr)


@pytest.mark.parametrize("verb", OF_MODELS)
def test_what_other_programs_do_with_models_is_answered_too(verb):
    assert f"there is no command models {verb}; {OF_MODELS[verb]}" in one_line(run("models", verb, "x").stderr)


def test_help_without_dashes_is_help():
    result = run("help", "chat")
    assert result.returncode == 0 and result.stdout.startswith(b"Usage: mistral-mlx [OPTIONS] COMMAND")


def test_the_commands_that_are_named_exist(program):
    named = {name for text in OF_OTHERS.values() for name in re.findall(r"'mistral-mlx ([a-z]+)", text)}
    assert {"chat", "complete", "info", "models", "pull"} == named <= set(program.commands)
    assert not set(OF_OTHERS) & set(program.commands)

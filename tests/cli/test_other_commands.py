"""The commands of other programs."""

import re

import pytest
from helpers.cli import one_line, run

from mistral_mlx.cli.options.other_programs import OF_OTHERS


@pytest.mark.parametrize("verb", OF_OTHERS)
def test_commands_of_other_programs_are_answered_with_ours(verb):
    result = run(verb, "mistral")
    assert (result.returncode, result.stdout) == (2, b"")
    assert f"there is no command {verb}; {OF_OTHERS[verb]}" in one_line(result.stderr)


def test_the_commands_that_are_named_exist(program):
    named = {name for text in OF_OTHERS.values() for name in re.findall(r"'mistral-mlx ([a-z]+)", text)}
    assert {"chat", "complete", "info", "models", "pull"} == named <= set(program.commands)
    assert not set(OF_OTHERS) & set(program.commands)

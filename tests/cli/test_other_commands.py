"""The commands and options of other programs, and arguments that are too many."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.cli import one_line, run

from mistral_mlx.cli.models.registry import register
from mistral_mlx.cli.options.other_programs import OF_GROUPS, OF_OTHERS, OPTIONS_OF_OTHERS, SPELLINGS


@pytest.mark.parametrize("verb", OF_OTHERS)
def test_commands_of_other_programs_are_answered_with_ours(verb):
    result = run(verb, "mistral")
    assert (result.returncode, result.stdout) == (2, b"")
    assert f"there is no command {verb}; {OF_OTHERS[verb]}" in one_line(result.stderr)


@pytest.mark.parametrize(("group", "verb"), [(group, verb) for group, of in OF_GROUPS.items() for verb in of])
def test_what_other_programs_do_with_models_and_settings_is_answered_too(group, verb):
    assert f"there is no command {group} {verb}; {OF_GROUPS[group][verb]}" in one_line(run(group, verb, "x").stderr)


def test_help_without_dashes_is_help():
    """It used to be that of the program, whatever followed."""
    for names, usage in [((), b"[OPTIONS] COMMAND"), (("chat",), b"chat"), (("models", "add"), b"models add")]:
        result = run("help", *names)
        assert result.returncode == 0 and result.stdout.startswith(b"Usage: mistral-mlx " + usage)
        assert result.stdout == run(*names, "--help").stdout
    assert "there is no command chatt; did you mean chat?" in one_line(run("help", "chatt").stderr)


def test_the_commands_that_are_named_exist(program):
    named = {name for text in OF_OTHERS.values() for name in re.findall(r"'mistral-mlx ([a-z]+)", text)}
    assert {"chat", "complete", "info", "models", "pull"} == named <= set(program.commands)
    assert not set(OF_OTHERS) & set(program.commands)


def flags_of(program, *commands):
    params = [p for name in commands or program.commands for p in program.commands[name].params]
    return {flag for p in params for flag in (*p.opts, *p.secondary_opts) if flag.startswith("-")}


def test_other_spellings_stand_for_options_and_are_none_themselves(program):
    flags = flags_of(program)
    assert {f"--{ours}" for ours in SPELLINGS.values()} <= flags
    assert not {f"--{theirs}" for theirs in SPELLINGS} & flags
    assert not [flag for flag in flags if "_" in flag]
    page = (Path(__file__).parents[2] / "docs" / "coming-from.md").read_text("utf-8")
    assert [theirs for theirs in SPELLINGS if f"`--{theirs}`" not in page] == []


@pytest.mark.parametrize("flag", ["--temp", "--temperature", "--TEMP"])
def test_an_option_may_be_called_as_elsewhere(flag):
    """--temp used to be answered with --template."""
    said = one_line(run("complete", "-m", "x", flag, "-1", "hi").stderr)
    assert ("there is no option --TEMP" if flag.isupper() else "temperature is -1") in said


def test_underscores_are_dashes():
    assert "max_tokens is 0" in one_line(run("complete", "-m", "x", "--max_new_tokens", "0", "hi").stderr)


@pytest.mark.parametrize("flag", OPTIONS_OF_OTHERS)
def test_an_option_that_none_stands_for_is_answered_with_what_does_the_same(flag):
    command = "chat" if flag == "-p" else "complete"
    assert f"no option {flag}; {OPTIONS_OF_OTHERS[flag]}" in one_line(run(command, flag, "1").stderr)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("complete -ngl 99 hi", "no option -ngl; --device gpu"),
        ("eval -m x -ngl 99", "no option -ngl; --device gpu"),
        ("complete -m x -cnv hi", "no option -cnv; 'mistral-mlx chat' is a conversation"),
        ("complete -no-cnv hi", "no option -no-cnv; 'mistral-mlx chat' is a conversation"),
        ("complete -c 4096 hi", "-c is --continue here, without a number; the context has no size to set"),
        ("complete -c ten hi", 'put it in quotes: "ten hi"'),
        ("convert x out8 -q 8", "-q is --quiet here, without a number; --bits N"),
        ("convert --hf-path x --mlx-path out -q --q-bits 8", "no option --hf-path; source and target are arguments"),
        ("complete -o temperature 0 hi", "no option -o; each option has its own name, as in --temperature 0"),
    ],
)
def test_what_means_something_else_elsewhere_is_answered_with_ours(line, said):
    """`-ngl 99` used to be a bad value of --max-tokens, and `-c 4096 hi` a prompt without quotes."""
    assert said in one_line(run(*line.split()).stderr)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("-v", "no option -v before a command; --version shows the version"),
        ("-m demo hi", "-m stands after the command: mistral-mlx complete -m …"),
        ("--bits 8 x", "--bits stands after the command: mistral-mlx convert --bits …"),
        ("--zzz", "no option --zzz before a command (see mistral-mlx --help)"),
    ],
)
def test_an_option_before_the_command_is_answered_with_its_place(line, said):
    """It used to be: No such option."""
    assert said in one_line(run(*line.split()).stderr)


def test_a_model_instead_of_a_command_is_answered_with_the_chat(folder):
    register("mine", folder)
    said = one_line(run("mine").stderr)
    assert said == "mistral-mlx: error: there is no command mine; it is a model: mistral-mlx chat -m mine"


def test_an_unknown_option_or_command_is_answered_with_those_like_it():
    assert "no option --modl; did you mean --model?" in one_line(run("complete", "--modl", "x").stderr)
    assert "no option --zzz (see mistral-mlx complete --help)" in one_line(run("complete", "--zzz").stderr)
    assert "no command modls; did you mean models?" in one_line(run("modls").stderr)
    assert "no command models renam; did you mean rename?" in one_line(run("models", "renam").stderr)


def test_words_without_quotes_are_answered_with_the_quotes():
    said = one_line(run("complete", "-m", "x", "Hi", "there", "you").stderr)
    assert said.endswith('the prompt is more than one argument; put it in quotes: "Hi there you"')
    assert 'put it in quotes: "a b"' in one_line(run("tokens", "a", "b").stderr)
    assert "c is an argument too many (see mistral-mlx models add --help)" in one_line(
        run("models", "add", *"abc").stderr
    )
    assert "no command config sett; did you mean set?" in one_line(run("config", "sett").stderr)
    assert "Missing argument 'KEY' (see mistral-mlx config set --help)" in one_line(run("config", "set").stderr)
    assert "b is an argument too many (see mistral-mlx info --help)" in one_line(run("info", "a", "b").stderr)


def test_the_package_is_the_program():
    result = subprocess.run([sys.executable, "-m", "mistral_mlx", "config", "path"], capture_output=True)
    assert (result.returncode, result.stdout.endswith(b"config.toml\n")) == (0, True)

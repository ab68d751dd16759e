"""The origin of each option's value, and the command `config`."""

import json
import re
import sys
from pathlib import Path

from helpers.environment import run

from mistral_mlx.cli.options import sources
from mistral_mlx.cli.options.command import Configurable
from mistral_mlx.sampling.knobs import knobs
from mistral_mlx.sampling.options import SamplingOptions


def found(program, command="complete"):
    return program.commands[command].settings(program.make_context("mistral-mlx", [command], resilient_parsing=True))


def defaults(program, command="complete"):
    return {s.option.name: s.value for s in found(program, command) if s.source != "default"}


def test_environment_before_table_before_top_of_the_file_before_default(program, config, monkeypatch):
    assert defaults(program) == {}
    config.write_text("temperature = 0.1\ntop-k = 3\nmax_tokens = 9\n[complete]\ntemperature = 0.2\ntop_k = 4\n")
    monkeypatch.setenv("MISTRAL_MLX_TEMPERATURE", "0.3")
    assert defaults(program) == {"temperature": 0.3, "top_k": 4, "max_tokens": 9}
    assert defaults(program, "chat") == {"temperature": 0.3, "top_k": 3, "max_tokens": 9}
    assert defaults(program, "convert") == {}


def test_the_command_line_comes_before_all(config):
    config.write_text("[models]\njson = true\n")
    assert run("models").stdout == "[]\n"
    assert run("models", MISTRAL_MLX_JSON="no").stdout == ""
    config.write_text("[tokens]\nmodel = 'of the file'\n")
    said = [run("tokens", *args, "x", **env).stderr for args, env in (([], {}), ([], V), (["-m", "given"], V))]
    assert [name in line for name, line in zip(("of the file", "of the variable", "given"), said, strict=True)] == [
        True
    ] * 3


V = {"MISTRAL_MLX_MODEL": "of the variable"}


def test_the_file_stands_in_the_users_config_folder_where_nothing_else_is_said(monkeypatch, home):
    assert sources.config_path() == home / "config.toml"
    monkeypatch.delenv("MISTRAL_MLX_HOME")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/elsewhere")
    if sys.platform == "linux":
        assert sources.config_path() == Path("/elsewhere/mistral-mlx/config.toml")


def test_every_option_of_every_command_has_a_twin_in_the_environment(program, monkeypatch):
    samples = {bool: ("yes", True), int: ("7", 7), float: ("0.5", 0.5), str: ("a b", "a b"), Path: ("p", "p")}
    for command in (name for name, of in program.commands.items() if isinstance(of, Configurable)):
        for option in [setting.option for setting in found(program, command)]:
            text, value = samples[option.kind]
            with monkeypatch.context() as patch:
                patch.setenv(option.variable, text)
                assert defaults(program, command)[option.name] == ([value] if option.parameter.multiple else value)
    assert {setting.option.name for setting in found(program)} >= knobs(SamplingOptions).keys()


def test_several_values(program, config, monkeypatch):
    config.write_text("[complete]\nstop = ['a b', 'c']\nlogit_bias = '5+1'\nrepeat_last_n = 3\n")
    assert defaults(program) == {"stop": ["a b", "c"], "logit_bias": ["5+1"], "repetition_context_size": 3}
    monkeypatch.setenv("MISTRAL_MLX_STOP", "x y\nz")
    assert defaults(program)["stop"] == ["x y", "z"]


def test_config_shows_each_value_and_where_it_comes_from(config):
    config.write_text("top_k = 5\n[complete]\ntop_p = 0.5\n")
    facts = json.loads(run("config", "--json", MISTRAL_MLX_SEED="3").stdout)
    assert (facts["file"], facts["exists"]) == (str(config), True)
    of = facts["options"]["complete"]
    assert of["seed"] == {
        "value": 3,
        "source": "environment",
        "where": "MISTRAL_MLX_SEED",
        "variable": "MISTRAL_MLX_SEED",
    }
    assert (of["top_p"]["value"], of["top_p"]["where"]) == (0.5, "complete.top_p")
    assert (of["top_k"]["value"], of["top_k"]["where"]) == (5, "top_k")
    assert (of["min_p"]["value"], of["min_p"]["source"]) == (0.0, "default")
    assert facts["options"].keys().isdisjoint(("config", "completion"))
    lines = [line.split() for line in run("config", "--all", MISTRAL_MLX_SEED="3").stdout.splitlines()]
    assert ["seed", "3", "environment", "(MISTRAL_MLX_SEED)"] in lines
    assert ["top_p", "0.5", "config", "file", "(complete.top_p)"] in lines


def test_config_shows_first_what_is_set(config):
    """It used to print all options of all commands, 180 lines."""
    result = run("config")
    assert (result.returncode, result.stdout) == (0, "")
    assert result.stderr.startswith("mistral-mlx: nothing is set") and str(config) in result.stderr
    assert result.stderr.count("\n") == 1
    config.write_text("top_k = 5\nmodel = 'mine'\n[complete]\ntop_k = 7\ntop_p = 0.5\n")
    result = run("config", MISTRAL_MLX_SEED="3")
    assert [line.split() for line in result.stdout.splitlines()] == [
        ["SET", "BY", "VALUE", "FROM", "COMMANDS"],
        ["model", '"mine"', "config", "file", "all"],
        ["complete.top_p", "0.5", "config", "file", "complete"],
        ["complete.top_k", "7", "config", "file", "complete"],
        ["MISTRAL_MLX_SEED", "3", "environment", "all"],
        ["top_k", "5", "config", "file", "batch,", "chat"],
    ]
    assert result.stderr == f"mistral-mlx: the config file is {config}; --all also shows the defaults\n"


def test_config_edit_writes_a_draft_that_changes_nothing_and_checks_what_was_made_of_it(config, tmp_path):
    assert run("config", "edit", "--editor", "true").returncode == 0
    drafted = config.read_text()
    assert drafted.splitlines()[3].startswith('# model = "demo"')
    assert drafted.count("# temperature = 0.7") == 1 and drafted.index("temperature") < drafted.index("# [chat]")
    lines = [line.removeprefix("# ") for line in drafted.splitlines()]
    draft = "\n".join(line for line in lines if re.match(r"\[|\w+ = [^…]", line))
    config.write_text(draft)
    assert run("config", "edit", "--editor", "true").returncode == 0
    break_it = tmp_path / "break"
    break_it.write_text('#!/bin/sh\necho "[complete]\ntop_k = 1.5" > "$1"\n')
    break_it.chmod(0o700)
    result = run("config", "edit", EDITOR=str(break_it), VISUAL="")
    assert (result.returncode, "top_k is 1.5" in result.stderr) == (2, True)
    assert "cannot be run" in run("config", "edit", "--editor", "/nonexistent").stderr
    assert "status 1" in run("config", "edit", "--editor", "false").stderr


def test_a_file_that_is_wrong_is_not_said_to_set_nothing(config):
    """Below the error it used to say that all options have their defaults."""
    for text in ('temperature = "hot"\n', "temperature = \n"):
        config.write_text(text)
        error, said = run("config").stderr.splitlines()
        assert str(config) in error
        assert said == "mistral-mlx: nothing else is set; 'mistral-mlx config edit' opens the file, to correct it"

"""Where the values of options come from, what happens to invalid ones, and `config`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx.cli.app import app
from mistral_mlx.cli.models.registry import register
from mistral_mlx.cli.options import sources
from mistral_mlx.cli.options.answer import from_plain
from mistral_mlx.cli.options.help import Command
from mistral_mlx.cli.options.shared import PANELS
from mistral_mlx.errors import OptionError
from mistral_mlx.sampling.knobs import knobs
from mistral_mlx.sampling.options import SamplingOptions

PROGRAM = [sys.executable, "-c", "from mistral_mlx.cli.main import main; main()"]


def run(*args, **env):
    return subprocess.run(
        [*PROGRAM, *map(str, args)], capture_output=True, text=True, timeout=60, stdin=-3, env={**os.environ, **env}
    )


@pytest.fixture(scope="module")
def program():
    import typer.main

    return typer.main.get_command(app)


@pytest.fixture
def config(home):
    return home / "config.toml"


def found(program, command="complete"):
    return program.commands[command].settings(program.make_context("mistral-mlx", [command], resilient_parsing=True))


def defaults(program, command="complete"):
    return {s.option.name: s.value for s in found(program, command) if s.source != "default"}


# Precedence


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
    for command in (name for name, of in program.commands.items() if isinstance(of, Command)):
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


# What cannot be


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[complete]\ntemprature = 1", "there is no option complete.temprature; did you mean temperature?"),
        ("modle = 'demo'", "there is no option modle; did you mean mode or model?"),
        ("[chatt]\na = 1", "there is no command chatt; did you mean chat?"),
        ("zzz = 1", "there is no option zzz; there are adapter, against, allow_nonfinite,"),
        ("[complete]\ntemperature = 'hot'", "complete.temperature is 'hot'; it must be a number"),
        ("[complete]\ntop_k = 1.5", "complete.top_k is 1.5; it must be a whole number"),
        ("[complete]\ntop_k = true", "complete.top_k is True; it must be a whole number"),
        ("[complete]\nraw = 1", "complete.raw is 1; it must be true or false"),
        ("[complete]\nstop = [1]", "complete.stop is [1]; it must be a text, or a list of them"),
        ("model = 3", "model is 3; it must be a text"),
        ("[complete", "is not TOML:"),
    ],
)
def test_what_is_wrong_with_the_file_is_one_line_with_file_key_and_value(config, text, said):
    config.write_text(text)
    result = run("models")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"mistral-mlx: error: {config}") and said in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_what_is_wrong_with_a_variable_is_one_line_with_its_name_and_value():
    result = run("complete", "x", MISTRAL_MLX_TOP_K="many")
    assert result.stderr == "mistral-mlx: error: MISTRAL_MLX_TOP_K is 'many'; it must be a whole number\n"
    assert run("models", MISTRAL_MLX_JSON="perhaps").returncode == 2


def test_a_value_out_of_range_names_its_origin(config, tmp_path):
    """It used to be called by its flag, which nobody had typed."""
    config.write_text("device = 'tpu'\n[complete]\ntemperature = -5\n")
    said = "mistral-mlx: error: {}; it must be {}\n"
    result = run("complete", "-m", "x", "x")
    assert result.stderr.startswith(f"mistral-mlx: error: {config}: complete.temperature is -5")
    result = run("complete", "-m", "x", "--temperature", "0", "x")
    assert result.stderr == said.format(f"{config}: device is 'tpu'", "auto, cpu or gpu")
    result = run("complete", "-m", "x", "--temperature", "0", "x", MISTRAL_MLX_DEVICE="npu")
    assert result.stderr == said.format("MISTRAL_MLX_DEVICE is 'npu'", "auto, cpu or gpu")
    result = run("complete", "-m", "x", "--temperature", "0", "--device", "cpux", "x", MISTRAL_MLX_DEVICE="npu")
    assert result.stderr == said.format("--device is 'cpux'", "auto, cpu or gpu")


def test_a_value_of_the_wrong_type_on_the_command_line_is_told_in_our_words():
    """It used to be pydantic's "Input should be a valid number"."""
    result = run("complete", "--top-p", "x", "hi")
    assert (result.returncode, result.stderr) == (2, "mistral-mlx: error: --top-p is 'x'; it must be a number\n")
    assert "--seed is '1.5'; it must be a whole number" in run("complete", "--seed", "1.5", "hi").stderr


def test_variables_without_effect_are_named_in_one_line_unless_quiet(tmp_path):
    """A misspelled variable used to be ignored in silence."""
    remark = "mistral-mlx: MISTRAL_MLX_TEMPRATURE has no effect; did you mean MISTRAL_MLX_TEMPERATURE?\n"
    assert run("models", "--json", MISTRAL_MLX_TEMPRATURE="0").stderr == remark
    assert run("config", "--json", MISTRAL_MLX_TEMPRATURE="0").stderr == remark
    ours = {"MISTRAL_MLX_KERNELS": "portable", "MISTRAL_MLX_DEBUG": "", "MISTRAL_MLX_TOP_P": "1"}
    assert run("models", "--json", **ours).stderr == ""
    result = run("complete", "-q", "-m", "nowhere", "x", MISTRAL_MLX_TEMPRATURE="0")
    assert "TEMPRATURE" not in result.stderr


@pytest.mark.parametrize("command", ["convert", "export"])
def test_only_the_command_line_makes_a_command_replace_its_target(config, command):
    """One name, force, used to let models load and targets be replaced, wherever it was set."""
    config.write_text("overwrite = true\n")
    assert "overwrite cannot be set here: give --overwrite on the command line" in run(command, "x", "y").stderr
    config.write_text("force = true\n")
    assert "there is no option force; it is called ignore_memory now" in run(command, "x", "y").stderr
    config.unlink()
    said = run(command, "x", "y", MISTRAL_MLX_OVERWRITE="1", MISTRAL_MLX_FORCE="1").stderr
    assert "MISTRAL_MLX_FORCE has no effect; did you mean MISTRAL_MLX_IGNORE_MEMORY?" in said
    assert "MISTRAL_MLX_OVERWRITE has no effect; give --overwrite on the command line" in said


def test_a_target_stays_whatever_variables_say(tmp_path):
    """MISTRAL_MLX_FORCE=1, which lets large models load, used to make convert replace a model."""
    folder = write_tiny_folder(tmp_path / "tiny")
    assert run("convert", folder, tmp_path / "out", "--dequantize").returncode == 0
    again = ("convert", folder, tmp_path / "out", "--dequantize")
    result = run(*again, MISTRAL_MLX_FORCE="1", MISTRAL_MLX_OVERWRITE="1")
    assert result.returncode == 5 and "replace it with --overwrite" in result.stderr
    assert run(*again, "--overwrite").returncode == 0


@pytest.mark.parametrize(("command", "flag"), [("convert", "--overwrite"), ("bench", "--ignore-memory")])
def test_the_old_flag_is_answered_with_the_new_one(command, flag):
    assert run(command, "--force").stderr == f"mistral-mlx: error: --force is called {flag} in this command\n"


@pytest.mark.parametrize("value", ["-h", "--help", "--debug"])
def test_a_value_that_looks_like_a_flag_is_only_a_value(value):
    """--help as a value dropped all variables and the config file, and --debug as a value showed tracebacks."""
    result = run("complete", "-m", "x", "--stop", value, "x", MISTRAL_MLX_TEMPERATURE="-1")
    assert result.stderr.startswith("mistral-mlx: error: MISTRAL_MLX_TEMPERATURE is -1")
    assert len(result.stderr.splitlines()) == 1


def test_a_broken_file_stops_neither_help_nor_the_commands_that_mend_it(config):
    config.write_text("[")
    assert run("complete", "--help").returncode == 0
    assert run("config", "path").stdout == f"{config}\n"
    assert run("completion", "bash").returncode == 0
    assert run("config").returncode == 2


# config


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
    lines = [line.split() for line in run("config", MISTRAL_MLX_SEED="3").stdout.splitlines()]
    assert ["seed", "3", "environment", "(MISTRAL_MLX_SEED)"] in lines
    assert ["top_p", "0.5", "config", "file", "(complete.top_p)"] in lines


def test_config_edit_writes_a_draft_that_changes_nothing_and_checks_what_was_made_of_it(config, tmp_path):
    assert run("config", "edit", "--editor", "true").returncode == 0
    assert "# temperature = 0.7" in config.read_text()
    draft = "\n".join(line.removeprefix("# ") for line in config.read_text().splitlines()[1:] if "…" not in line)
    config.write_text(draft)
    assert run("config", "edit", "--editor", "true").returncode == 0
    break_it = tmp_path / "break"
    break_it.write_text('#!/bin/sh\necho "[complete]\ntop_k = 1.5" > "$1"\n')
    break_it.chmod(0o700)
    result = run("config", "edit", EDITOR=str(break_it), VISUAL="")
    assert (result.returncode, "top_k is 1.5" in result.stderr) == (2, True)
    assert "cannot be run" in run("config", "edit", "--editor", "/nonexistent").stderr
    assert "status 1" in run("config", "edit", "--editor", "false").stderr


# The options of sampling, help and completion


def test_options_are_read_as_users_write_them_and_spelled_again():
    plain = {"logit_bias": ["5+1.5", "7-inf", "8-2"], "dry_sequence_breaker": ["a", "b"], "temperature": 1}
    options = SamplingOptions(**from_plain(SamplingOptions, plain))
    assert options.logit_bias == {5: 1.5, 7: -float("inf"), 8: -2}
    assert options.dry_sequence_breakers == ("a", "b")
    spelled = {key: option.to_plain(getattr(options, option.name)) for key, option in knobs(SamplingOptions).items()}
    assert {key: spelled[key] for key in plain} == plain
    assert SamplingOptions(**from_plain(SamplingOptions, spelled)) == options
    none = from_plain(SamplingOptions, {"dry_sequence_breaker": ["none"], "logit_bias": None})
    assert none == {"dry_sequence_breakers": (), "logit_bias": None}
    assert SamplingOptions().dry_sequence_breakers == ("\n", ":", '"', "*")


@pytest.mark.parametrize("bad", ["5", "+1", "x+1", "5+", "5+x", "5*2", "-5+1"])
def test_a_logit_bias_is_an_id_and_a_signed_number(bad):
    with pytest.raises(OptionError, match="logit_bias is"):
        from_plain(SamplingOptions, {"logit_bias": [bad]})


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"temperature": -1}, "temperature is -1; it must be a number of at least 0"),
        ({"temperature": "hot"}, "temperature is hot; it must be a number of at least 0"),
        ({"top_p": 0}, "top_p is 0; it must be a number above 0 and at most 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; it must be a number above 0"),
        ({"min_p": 2}, "min_p is 2; it must be a number from 0 to 1"),
        ({"top_k": 1.5}, "top_k is 1.5; it must be a whole number of at least 0"),
        ({"presence_penalty": float("inf")}, "presence_penalty is inf; it must be a finite number"),
        ({"seed": 2**63}, f"seed is {2**63}; it must be a whole number from 0 to {2**63 - 1}"),
    ],
)
def test_all_ranges_are_told_in_one_form(options, said):
    with pytest.raises(OptionError) as refused:
        SamplingOptions(**options)
    assert str(refused.value) == said


def test_every_option_but_the_main_ones_has_a_section_of_the_help(program):
    """Options that were renamed used to fall out of their section."""
    main = {"help", "model", "max_tokens", "resume", "last", "on_overflow", "save", "history", "chat", "n_prompt"}
    main |= {"n_gen", "depth", "repeats"}
    for command in (of for of in program.commands.values() if isinstance(of, Command)):
        for option in command.options:
            assert option.name in main or option.parameter.rich_help_panel in PANELS, option.name


def test_help_has_sections_examples_and_no_configured_values(config):
    config.write_text("top_k = 77\n")
    text = run("complete", "--help").stdout
    assert [title in text for title in ("\nSampling:\n", "\nOutput:\n", "\nExamples:\n  mistral-mlx complete")] == [
        True
    ] * 3
    assert "MISTRAL_MLX_<OPTION>" in text
    assert "77" not in text
    assert text.index("Sampling:") < text.index("--dry-base") < text.index("Output:")


def test_a_shell_completes_commands_options_and_the_names_of_models(tmp_path):
    register("mine", tmp_path)

    def completed(*words):
        return run(
            _MISTRAL_MLX_COMPLETE="complete_bash",
            COMP_WORDS=" ".join(("mistral-mlx", *words)),
            COMP_CWORD=str(len(words)),
        ).stdout.split()

    assert "models" in completed("mo")
    assert "--xtc-threshold" in completed("complete", "--xtc")
    assert completed("complete", "-m", "mi") == ["mine"]
    assert "_MISTRAL_MLX_COMPLETE=complete_bash" in run("completion", "bash").stdout
    assert run("completion", "tcsh").returncode == 2

"""Values of options that are refused, and the lines that say so."""

import json

import pytest
from helpers.environment import run
from helpers.tiny_folder import write_tiny_folder


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[complete]\ntemprature = 1", "there is no option complete.temprature; did you mean temperature?"),
        ("modle = 'demo'", "there is no option modle; did you mean mode or model?"),
        ("[chatt]\na = 1", "there is no command chatt; did you mean chat?"),
        ("zzz = 1", "there is no option zzz; 'mistral-mlx config --all' lists the options"),
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
    result = run("complete", "x")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"mistral-mlx: error: {config}") and said in result.stderr
    assert len(result.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "refusing"),
    [
        ("modle = 'demo'", {"complete", "info"}),
        ("[chatt]", {"complete", "info"}),
        ("[", {"complete", "info"}),
        ("[complete]\ntemprature = 1", {"complete"}),
        ("temperature = 'hot'", {"complete"}),
        ("[bench]\nzzz = 1", set()),
        ("json = 1", {"complete", "info", "models"}),
    ],
)
def test_what_is_wrong_stops_only_the_commands_that_it_concerns(config, text, refusing):
    """A wrong key used to stop every command, models and config among them."""
    config.write_text(text)
    for command in ("complete", "info", "models"):
        result = run(command, *(["-m", "no/where", "x"][: {"complete": 3, "info": 2, "models": 0}[command]]))
        said = f"mistral-mlx: {'error: ' if command in refusing else ''}{config}"
        assert result.stderr.startswith(said), (command, result.stderr)
        assert result.returncode == (2 if command in refusing else 0 if command == "models" else 3)
    assert run("config", "path").returncode == 0
    result = run("config", "--json")
    assert (result.returncode, json.loads(result.stdout)["faults"]) == (
        0,
        [result.stderr.removeprefix("mistral-mlx: ")[:-1]],
    )


def test_a_model_that_is_not_there_names_its_origin(config):
    """A model that was set long ago used to be an error without a cause."""
    config.write_text("model = 'no/where'\n")
    assert run("info").stderr.endswith(f"(no/where is what {config}: model says)\n")
    assert run("info", MISTRAL_MLX_MODEL="no/one").stderr.endswith("(no/one is what MISTRAL_MLX_MODEL says)\n")
    assert "says" not in run("info", "no/where").stderr


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
    assert run("config").returncode == 0
    assert run("complete", "--help").returncode == 0
    assert run("config", "path").stdout == f"{config}\n"
    assert run("completion", "bash").returncode == 0

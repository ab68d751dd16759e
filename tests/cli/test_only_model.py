"""The model that is used where none is named."""

import json

import pytest
from helpers.cli import GREEDY, one_line, run

from mistral_mlx.cli.models.registry import register

pytestmark = pytest.mark.usefixtures("disk")


def test_the_only_registered_model_is_used_and_that_is_said(folder):
    register("mine", folder)
    for args in (["complete", *GREEDY, "x"], ["info"], ["tokens", "x"], ["chat", *GREEDY, "--no-save"]):
        result = run(*args)
        assert result.returncode == 0
        assert result.stderr.decode().count("mistral-mlx: using mine, the only registered model\n") == 1
    answer = run("complete", "-q", *GREEDY, "--json", "x")
    assert (answer.stderr, json.loads(answer.stdout)["model"]) == (b"", "mine")


def test_several_models_or_none_are_named_in_the_error(folder, endless):
    said = one_line(run("complete", "x").stderr)
    assert "which model? None is registered: 'mistral-mlx pull demo' or 'pull ORG/REPO' fetches one" in said
    register("b", folder)
    register("a", endless)
    result = run("complete", "x")
    assert (result.returncode, result.stdout) == (2, b"")
    assert "which model? registered: a, b; give --model, or set MISTRAL_MLX_MODEL" in one_line(result.stderr)


def test_a_model_of_the_environment_or_the_config_is_no_question(folder, endless, config, monkeypatch):
    register("mine", folder)
    config.write_text(f"model = {str(endless)!r}\n")
    answer = run("complete", *GREEDY, "x")
    assert answer.stdout.startswith(b"the the") and b"using" not in answer.stderr
    monkeypatch.setenv("MISTRAL_MLX_MODEL", str(folder))
    assert not run("complete", *GREEDY, "x").stdout.startswith(b"the the")

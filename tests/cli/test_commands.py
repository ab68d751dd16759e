"""Registered names, and the commands about a model: info, convert, export, bench and pull."""

import json
import os
import re

from helpers.cli import GREEDY, one_line, run
from helpers.invoke import invoke
from helpers.mixtures import EXPERTS, MIXTRAL, weights_of
from helpers.models import write_folder
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx import kernels
from mistral_mlx.version import __version__


def test_version_names_the_program_its_number_and_the_kernels():
    result = run("--version")
    assert (result.returncode, result.stderr) == (0, b"")
    name, number, rest = result.stdout.decode().split(" ", 2)
    assert (name, number) == ("mistral-mlx", __version__)
    assert re.fullmatch(rf"\(mlx [\d.]+, Python [\d.]+\S*, kernels: {re.escape(kernels.names())}\)\n", rest)


def test_a_registered_name_wins_over_a_folder_and_a_path_says_it_is_one(folder, endless, tmp_path, monkeypatch):
    from mistral_mlx.cli.models.registry import register

    register("tiny", endless)
    (tmp_path / "tiny").symlink_to(folder)
    assert run("complete", "-q", "-m", "tiny", *GREEDY, "x", cwd=tmp_path).stdout.startswith(b"the the")
    assert not run("complete", "-q", "-m", "./tiny", *GREEDY, "x", cwd=tmp_path).stdout.startswith(b"the the")
    monkeypatch.setenv("MISTRAL_MLX_MODEL", "tiny")
    assert run("complete", "-q", *GREEDY, "x").stdout.startswith(b"the the")


def test_info_says_what_the_cache_will_take(folder):
    facts = json.loads(run("info", folder, "--json").stdout)
    assert facts["sliding_window"] == [8, 8]
    assert facts["kv_bytes_at_window"] == facts["kv_bytes_at_context"] == 2 * 2 * 128 * 2 * 8 * 4  # of 128 slots
    assert facts["tokenizer"]["version"] == "v3"
    text = run("info", folder).stdout.decode()
    assert "2 layers see the last 8 tokens" in text
    assert "4 query heads share 2 key/value heads of 8" in text


def test_info_names_the_packing_mode(folder, tmp_path):
    """Every packing used to be called affine."""
    assert run("convert", folder, tmp_path / "out", "--mode", "mxfp4").returncode == 0
    assert "(mxfp4 4-bit, group 32" in run("info", tmp_path / "out").stdout.decode()


def test_info_counts_the_weights_that_a_token_uses(tmp_path):
    config = MIXTRAL | {"num_experts_per_tok": 1}
    weights = weights_of(config)
    folder = write_folder(tmp_path / "mixture", config, weights)
    facts = json.loads(run("info", folder, "--json").stdout)
    unused = sum(w[1:].size for name, w in weights.items() if EXPERTS in name)
    assert facts["parameters"] == sum(w.size for w in weights.values())
    assert facts["active_parameters"] == facts["parameters"] - unused
    assert (facts["experts"], facts["experts_per_token"]) == (4, 1)
    text = run("info", folder).stdout.decode()
    assert f"each token uses 1 of 4, and {facts['active_parameters']:,} of the weights" in text


def test_info_of_a_single_feed_forward_names_no_experts(folder):
    facts = json.loads(run("info", folder, "--json").stdout)
    assert facts["active_parameters"] == facts["parameters"] and facts["experts"] == 0
    assert "experts" not in run("info", folder).stdout.decode()


def test_info_describes_scaled_positions(tmp_path):
    yarn = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 16.0, "original_max_position_embeddings": 32}
    folder = write_tiny_folder(
        tmp_path / "scaled",
        model_type="ministral3",
        rope_parameters=yarn | {"llama_4_scaling_beta": 0.1},
    )
    facts = json.loads(run("info", folder, "--json").stdout)
    assert (facts["rope_scaling"]["type"], facts["rope_scaling"]["factor"]) == ("yarn", 16.0)
    assert facts["query_scale"] == {"beta": 0.1, "original": 32} and facts["remarks"] == []
    text = run("info", folder).stdout.decode()
    assert "(rope_theta 10000, YaRN, 16 times 32, queries scaled from 32 on)" in text


def test_a_copy_that_is_another_model_is_said(folder, tmp_path, monkeypatch):
    """When it is loaded, converted and described; `folder` has the shape of Ministral 8B here."""
    monkeypatch.setattr("mistral_mlx.model.known.MINISTRAL_8B", (2, 32, 64))
    monkeypatch.setattr("mistral_mlx.model.known.MINISTRAL_8B_WINDOW", 8)
    bench = ["bench", folder, "-p", 1, "-n", 1, "--repeats", 1]
    for command in (bench, ["convert", folder, tmp_path / "out"]):
        assert "exact up to 8 tokens only" in invoke(*command).stderr
    assert "exact up to 8 tokens only" in " ".join(invoke("info", folder).stdout.split())


def test_convert_names_what_it_keeps_and_the_result_runs(tmp_path):
    folder = write_tiny_folder(tmp_path / "odd", intermediate_size=72)
    result = run("convert", folder, tmp_path / "out", "--bits", "4", "--group-size", "32")
    assert (result.returncode, result.stdout) == (0, b"")
    assert "model.layers.*.mlp.down_proj.weight (2 layers): its 72 columns" in result.stderr.decode()
    assert "bits per weight" in result.stderr.decode()
    assert run("complete", "-q", "-m", tmp_path / "out", *GREEDY, "Hello").returncode == 0
    again = run("convert", folder, tmp_path / "out")
    assert again.returncode == 5


def test_commands_about_a_model_take_it_as_an_argument_or_an_option(folder, tmp_path):
    """convert used to know no names, bench no argument, and info to ignore one of two models."""
    from mistral_mlx.cli.models.registry import register

    register("tiny", folder)
    dry = ("--dry-run", "--dequantize", "--json")
    for args in (("tiny",), ("-m", "tiny"), (folder,)):
        assert run("info", *args).returncode == 0
        assert run("convert", *args, *dry, cwd=tmp_path).returncode == 0
    made = run("convert", "tiny", *dry, cwd=tmp_path)
    assert json.loads(made.stdout)["target"] == str(tmp_path / "tiny-mlx")
    for args in (("tiny", "a.gguf"), ("-m", "tiny", "b.gguf")):
        assert run("export", *args, "-q", cwd=tmp_path).returncode == 0
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()
    assert run("bench", "tiny", "-p", "2", "-n", "1", "--repeats", "1", "-q").returncode == 0
    for command in ("info", "bench"):
        refused = run(command, folder, "-m", "tiny")
        assert (refused.returncode, "two models are given" in one_line(refused.stderr)) == (2, True)


def test_a_dry_run_marks_what_was_asked_for(folder, tmp_path):
    """The row was not marked, and --target-bpw had none; a conversion still spoke of free disk."""

    def rows(*args):
        said = run("convert", folder, tmp_path / "out", "--group-size", "32", *args, "--dry-run").stderr.decode()
        assert "  disk " in said and "MEMORY FOR 4,096 TOKENS" in said
        return [re.split(r"  +", line)[1] for line in said.splitlines() if line.startswith("->")]

    assert rows("--bits", "8") == ["--bits 8 --group-size 32"]
    assert rows("--bits", "4") == ["--bits 4 --group-size 32"]
    assert rows("--target-bpw", "6.5") == ["--group-size 32 --target-bpw 6.5"]
    said = run("convert", folder, tmp_path / "out", "--group-size", "32").stderr.decode()
    assert "  disk " not in said
    assert re.search(r"  worst errors  \d+\.\d\d% of the norm of model\.", said)


def test_convert_json_is_the_report(folder, tmp_path):
    report = json.loads(run("convert", folder, tmp_path / "out", "--group-size", "32", "--dry-run", "--json").stdout)
    assert report["dry_run"] is True
    assert report["bits_per_weight"] > 4
    assert not (tmp_path / "out").exists()


def test_pull_says_when_the_index_cannot_be_reached():
    env = {
        **os.environ,
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_NO_INDEX": "0",
        "PIP_CONFIG_FILE": os.devnull,
    }
    env["PIP_RETRIES"] = "0"
    result = run("pull", "demo", "--quiet", env={k: v for k, v in env.items() if k != "PIP_EXTRA_INDEX_URL"})
    assert result.returncode == 5
    assert "could not be downloaded" in one_line(result.stderr)

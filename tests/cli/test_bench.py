"""`bench`: what it measures, at which depth and how often; its output; and the threads."""

import io
import json
import re
import signal
import subprocess
import sys
import time

import mlx.core as mx
import pytest
from helpers.cli import PROGRAM, interrupted, one_line, run
from helpers.models import on_evaluation, tiny_config, tiny_model, tiny_weights, write_folder

from mistral_mlx import kernels
from mistral_mlx.cli.models import opening
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.reports import bench
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import ContextError, OptionError
from mistral_mlx.generation.answer import DEFAULT_MAX_TOKENS
from mistral_mlx.measure.benchmark import Measurement, Workload, bytes_per_token, measure
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import load_model

KV_BYTES = 2 * 2 * 2 * 8 * 4  # of a position in the tiny model: keys and values, 2 layers, 2 heads of 8, float32
SMALL = ("-p", "4", "-n", "2", "--repeats", "2")
native_only = pytest.mark.skipif(not kernels.native.available, reason="no native kernels")


@pytest.fixture
def quick(monkeypatch):
    """A read bandwidth that takes no time: 1 GB/s, then 2, then 1 again, ..."""
    rates = iter([1e9, 2e9] * 3)
    monkeypatch.setattr(kernels, "read_bandwidth", lambda: next(rates))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model folder without a tokenizer."""
    config = tiny_config(sliding_window=None, max_position_embeddings=64)
    return write_folder(tmp_path_factory.mktemp("m") / "m", config, tiny_weights(ModelArgs.from_config(config)))


@pytest.mark.parametrize("window", [None, 3, 7, 64])
@pytest.mark.parametrize("depth", [0, 5])
def test_every_repeat_finds_as_many_tokens_in_the_cache_as_the_first(quick, monkeypatch, window, depth):
    """Windows of 3 and 7 wrap before and during a repeat, and a wrapped ring cannot be taken back by `trim`."""
    model, _ = tiny_model(sliding_window=window)
    steps = []
    on_evaluation(monkeypatch, lambda ids, cache: steps.append((ids.shape[1], cache[0].offset, cache[0].nbytes)))
    measure(model, Workload(n_prompt=4, n_gen=3, depth=depth, repeats=2))
    filling = [(5, 0)] if depth else []
    prefill, decode = [(4, depth)], [(1, depth), (1, depth + 1), (1, depth + 2)]
    assert [step[:2] for step in steps] == filling + prefill + decode + prefill * 2 + decode * 2
    assert len({nbytes for _, offset, nbytes in steps[len(filling) :] if offset == depth}) == 1


def test_a_repeat_does_not_keep_the_slots_that_another_has_added(quick, monkeypatch):
    model, _ = tiny_model(sliding_window=None)
    sizes = []
    on_evaluation(monkeypatch, lambda ids, cache: sizes.append(cache[0].nbytes))
    measure(model, Workload(n_prompt=256, n_gen=0, depth=5, repeats=2))
    assert sizes[1:] == [sizes[1]] * 3


def test_speeds_are_medians_and_the_larger_bandwidth_counts(quick, monkeypatch):
    warm_up = [0, 9, 9, 0, 9]
    prefills = [0, 1, 3, 0, 4, 5, 0, 2, 4]  # each a start, the logits, the choice
    decodes = [0, 1, 0, 8, 0, 2]
    clock = iter(warm_up + prefills + decodes)
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    model, _ = tiny_model()
    result = measure(model, Workload(n_prompt=8, n_gen=16, repeats=3))
    assert (result.prompt_tps, result.prompt_tps_spread, result.ttft_s) == (4, 3, 4)
    assert (result.generation_tps, result.generation_tps_spread) == (8, 7)
    assert result.read_bandwidth_gbs == 2
    assert result.read_bandwidth_share == result.bytes_per_token * 8 / 2e9
    assert next(clock, None) is None


@pytest.mark.parametrize("left_out", ["n_prompt", "n_gen"])
def test_a_half_that_is_left_out_is_none(quick, left_out):
    model, _ = tiny_model()
    result = measure(model, Workload(**{"n_prompt": 4, "n_gen": 2, "repeats": 1, left_out: 0}))
    prompt = {result.prompt_tps, result.ttft_s}
    decode = {result.generation_tps, result.bytes_per_token, result.read_bandwidth_gbs, result.read_bandwidth_share}
    absent, there = (prompt, decode) if left_out == "n_prompt" else (decode, prompt)
    assert absent == {None}
    assert None not in there
    assert result.prompt_tps_spread is result.generation_tps_spread is None  # one repeat has no spread


@pytest.mark.parametrize("tied", [False, True])
def test_all_weights_are_read_for_a_token_but_one_row_of_an_embedding_that_is_not_the_head(tied):
    model, weights = tiny_model(tie_word_embeddings=tied)
    nbytes = {name: weight.nbytes for name, weight in weights.items()}
    if not tied:
        nbytes["model.embed_tokens.weight"] = 32 * 4
    assert bytes_per_token(model, 0, 1) == sum(nbytes.values()) + KV_BYTES


def test_packed_weights_count_as_they_are_stored(tmp_path):
    config = tiny_config(quantization={"bits": 4, "group_size": 32})
    weights = {}
    for name, weight in tiny_weights(ModelArgs.from_config(config)).items():
        path = name.removesuffix(".weight")
        parts = mx.quantize(mx.array(weight), 32, 4) if weight.ndim == 2 else [mx.array(weight)]
        weights |= dict(zip([f"{path}.{part}" for part in ("weight", "scales", "biases")], parts, strict=False))
    model = load_model(write_folder(tmp_path / "packed", config, weights))
    table = sum(weight.nbytes for name, weight in weights.items() if "embed_tokens" in name)
    row = 32 // 2 + 4 + 4  # codes, a scale and a bias
    assert bytes_per_token(model, 0, 1) == sum(w.nbytes for w in weights.values()) - table + row + KV_BYTES


@pytest.mark.parametrize(("window", "visible"), [(None, (6 + 7 + 8) / 3), (7, (6 + 7 + 7) / 3), (3, 3)])
def test_keys_and_values_count_as_far_as_the_window_shows_them(window, visible):
    model, _ = tiny_model(sliding_window=window)
    empty = bytes_per_token(model, 0, 1) - KV_BYTES
    assert bytes_per_token(model, 5, 3) == round(empty + KV_BYTES * visible)


@pytest.mark.parametrize(
    ("counts", "said"),
    [
        ({"n_prompt": -1}, "n_prompt is -1; it must be 0 to 1000000"),
        ({"n_gen": 1_000_001}, "n_gen is 1000001"),
        ({"depth": -5}, "depth is -5"),
        ({"repeats": 0}, "repeats is 0; it must be 1"),
        ({"n_prompt": 0, "n_gen": 0}, "nothing to measure"),
    ],
)
def test_impossible_counts_are_refused_by_name(counts, said):
    with pytest.raises(OptionError, match=said):
        Workload(**counts)


@pytest.mark.parametrize("longer", ["n_prompt", "n_gen"])
def test_the_last_token_may_fill_the_context_and_not_pass_it(quick, longer):
    model, _ = tiny_model(sliding_window=None, max_position_embeddings=12)
    measure(model, Workload(**{"n_prompt": 1, "n_gen": 1, "repeats": 1, longer: 4}, depth=8))
    with pytest.raises(ContextError, match="a depth of 8 and 5 tokens more do not fit into the model's context of 12"):
        measure(model, Workload(**{"n_prompt": 1, "n_gen": 1, longer: 5}, depth=8))


@pytest.mark.cpu
def test_progress_names_what_is_done(quick):
    model, _ = tiny_model()
    told = []
    measure(model, Workload(n_prompt=4, n_gen=2, depth=3, repeats=2), progress=lambda *args: told.append(args))
    assert told == [
        ("filling the cache", 0, 3),
        ("filling the cache", 1, 3),  # after the first of two blocks
        ("filling the cache", 3, 3),
        ("warming up", 0, 1),
        *(("prefill", i, 2) for i in range(2)),
        *(("decode", i, 2) for i in range(2)),
    ]


# The command


def test_json_is_one_object_of_a_model_without_a_tokenizer(folder):
    # Begun by these tests, it would count the most memory they ever held as its own; so a shell begins it.
    shell = ["sh", "-c", '"$@"; exit $?', "sh", *PROGRAM]
    command = [*shell, "bench", "-m", folder, *SMALL, "--depth", "3", "--threads", "1", "--json"]
    result = subprocess.run(command, capture_output=True, stdin=subprocess.DEVNULL, check=False)
    assert (result.returncode, result.stderr, result.stdout.count(b"\n")) == (0, b"", 1)
    facts = json.loads(result.stdout)
    measured = {*Measurement.__dataclass_fields__, "kernels", "threads", "model"}
    assert facts.keys() == measured | {"n_prompt", "n_gen", "depth", "repeats", "window", "sinks", "kv_bits"}
    assert [facts[key] for key in ("model", "n_prompt", "n_gen", "depth", "repeats")] == [str(folder), 4, 2, 3, 2]
    assert facts["prompt_tps"] > 0 and facts["generation_tps"] > 0 and facts["peak_memory_gb"] > 0.01
    if kernels.native.available:
        assert facts["threads"] == 1
        share = facts["bytes_per_token"] * facts["generation_tps"] / facts["read_bandwidth_gbs"] / 1e9
        assert facts["read_bandwidth_share"] == pytest.approx(share, rel=1e-5)
        assert facts["peak_memory_gb"] < 0.4  # measuring the bandwidth takes 0.54 GB, which is not the model's


def test_a_pipe_gets_plain_lines(folder):
    lines = run("bench", "-m", folder, *SMALL, "--depth", "3").stdout.decode().splitlines()
    titles = ["model", "prefill", "first token", "decode", "reads", "memory", "kernels", "figures"]
    assert [line[:13].strip() for line in lines] == titles
    assert re.fullmatch(r"[\d.]+ ± [\d.]+ tok/s, 4 tokens after 3", lines[1][13:])
    assert lines[-1][13:] == "median ± half the range of 2, after a warm-up"


def test_a_terminal_gets_the_same_lines_without_control_sequences(monkeypatch):
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", screen)
    measurement = Measurement(100.0, 2.0, 0.25, 50.0, None, 10**9, None, None, 1.5)
    bench.show("a[bold]\x1b[2J", Workload(), measurement, as_json=False)
    text = screen.getvalue()
    assert "model        a[bold]␛[2J\n" in text
    assert "prefill      100.0 ± 2.0 tok/s, 512 tokens\n" in text
    assert "memory       1.50 GB at most\n" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("args", "status", "said"),
    [
        (["-p", "0", "-n", "0"], 2, "nothing to measure"),
        (["--repeats", "0"], 2, "repeats is 0"),
        (["--depth", "64"], 4, "context of 64"),
        (["--threads", "1025"], 2, "--threads is 1025; it must be 1 to 1024, or 0"),
        (["--threads", "-1"], 2, "--threads is -1"),
    ],
)
def test_errors_are_one_line_and_a_documented_status(folder, args, status, said):
    result = run("bench", "-m", folder, *args)
    assert (result.returncode, result.stdout) == (status, b"")
    assert said in one_line(result.stderr)


def test_a_workload_beyond_the_context_is_refused_before_the_weights_are_opened(folder, tmp_path):
    (tmp_path / "config.json").write_bytes((folder / "config.json").read_bytes())
    assert run("bench", "-m", tmp_path, "--depth", "64").returncode == 4
    assert run("bench", "-m", tmp_path, *SMALL).returncode == 3


def test_ctrl_c_ends_it_with_its_status_and_nothing_on_stdout(folder):
    started = time.monotonic()
    args = ["bench", "-m", folder, *SMALL, "--repeats", "1000000"]
    result = interrupted(args, signal.SIGINT, after=lambda: time.monotonic() - started > 1.5)
    assert (result.returncode, result.stdout) == (130, b"")
    assert "interrupted" in one_line(result.stderr)


# Threads and defaults


@native_only
def test_the_environment_sets_the_threads_and_the_option_wins(folder, monkeypatch):
    monkeypatch.setenv("MISTRAL_MLX_THREADS", "3")
    args = ("bench", "-m", folder, "-p", "1", "-n", "0", "--repeats", "1", "--json")
    assert [json.loads(run(*args, *more).stdout)["threads"] for more in ((), ("--threads", "1"))] == [3, 1]


@native_only
def test_no_number_of_threads_means_the_default(capsys):
    default = kernels.threads()
    try:
        opening.use_machine("auto", default + 1, Notes())
        assert (kernels.threads(), f"{default + 1} threads" in kernels.names()) == (default + 1, True)
    finally:
        opening.use_machine("auto", 0, Notes())
    assert (kernels.threads(), capsys.readouterr()) == (default, ("", ""))


def test_any_gpu_that_mlx_finds_can_be_named(monkeypatch):
    """Only Metal was asked for, so a CUDA GPU was refused."""
    chosen = []
    monkeypatch.setattr(mx, "set_default_device", chosen.append)
    monkeypatch.setattr(mx.metal, "is_available", lambda: False)
    monkeypatch.setattr(mx, "is_available", lambda device: True)
    opening.use_machine("gpu", 0, Notes())
    assert chosen == [mx.Device(mx.gpu)]
    monkeypatch.setattr(mx, "is_available", lambda device: device == mx.Device(mx.cpu))
    with pytest.raises(OptionError, match="MLX finds none here"):
        opening.use_machine("gpu", 0, Notes())
    assert len(chosen) == 1


def test_threads_that_the_system_does_not_give_are_a_usage_error(monkeypatch):
    def refuse(n):
        raise RuntimeError("Resource temporarily unavailable")

    monkeypatch.setattr(kernels, "set_threads", refuse)
    with pytest.raises(OptionError, match="--threads is 1000, but the system cannot start so many"):
        opening.use_machine("auto", 1000, Notes())


@pytest.mark.cpu
@pytest.mark.parametrize(("args", "said"), [(["--threads", "2"], True), (["--threads", "2", "-q"], False), ([], False)])
def test_without_native_kernels_threads_are_said_to_have_no_effect_and_no_bandwidth_is_made_up(folder, args, said):
    without = "from mistral_mlx.kernels import native; native.available, native.missing = False, 'no compiler'; "
    command = [sys.executable, "-c", without + PROGRAM[2], "bench", "-m", folder, *SMALL, "--json", *args]
    result = subprocess.run(command, capture_output=True, timeout=60)
    facts = json.loads(result.stdout)
    assert [facts[key] for key in ("threads", "read_bandwidth_gbs", "read_bandwidth_share")] == [None] * 3
    assert facts["generation_tps"] > 0
    remark = "mistral-mlx: --threads has no effect here; the kernels are numpy (no native kernels: no compiler)\n"
    assert result.stderr.decode() == (remark if said else "")


def test_the_defaults_of_the_options_are_those_of_the_engine():
    assert shared.MAX_TOKENS == DEFAULT_MAX_TOKENS
    assert Workload(shared.N_PROMPT, shared.N_GEN, shared.DEPTH, shared.REPEATS) == Workload()

"""The arithmetic of the benchmarks, and one whole benchmark on a tiny model."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest

from mistral_mlx.kernels import native

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # scripts beside each other, not a package

from common import alternate, ratio, ratios  # noqa: E402
from models import MISTRAL_7B, MODELS, TINY  # noqa: E402
from peers import Peer  # noqa: E402
from random_weights import DEVIATION, write_gguf  # noqa: E402
from requantize import write_q4_0  # noqa: E402
from rows import random_block  # noqa: E402
from table import table  # noqa: E402


def test_sides_take_turns_and_every_other_round_goes_backwards() -> None:
    order = []
    values = alternate(3, {name: lambda n=name: order.append(n) or len(order) for name in "ab"})
    assert "".join(order) == "ba" + "ab" + "ba" + "ab"
    assert values == {"a": [3, 6, 7], "b": [4, 5, 8]}  # the first round warms up


def test_a_ratio_is_taken_within_a_round() -> None:
    assert ratio([1.0, 8.0, 30.0], [1.0, 4.0, 10.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_our_rates_are_compared_with_the_fastest_peer_of_each_round() -> None:
    found = ratios([4.0, 15.0], {"a": [1.0, 5.0], "b": [2.0, 3.0]})
    assert found["a"] == {"median": 3.5, "min": 3.0, "max": 4.0}
    assert found["the fastest peer"] == {"median": 2.5, "min": 2.0, "max": 3.0}
    assert list(ratios([4.0], {"a": [1.0]})) == ["a"]


def test_a_measure_may_return_several_values() -> None:
    assert alternate(2, {"a": lambda: {"x": 1.0, "y": 2.0}, "b": lambda: 3.0}, warmup=0) == {
        "a x": [1.0, 1.0],
        "a y": [2.0, 2.0],
        "b": [3.0, 3.0],
    }


def program(path: Path, lines: list[str]) -> Path:
    """Write a program that prints these lines, and leaves its arguments in a file beside it."""
    redirect = " >&2" if path.name == "llama-sweep-bench" else ""  # as that program does
    text = "\n".join(lines)
    path.write_text(f"#!/bin/sh\necho \"$@\" > {path}.called\ncat{redirect} <<'END'\n{text}\nEND\n")
    path.chmod(0o755)
    return path


def test_rates_are_read_from_llama_bench(tmp_path: Path) -> None:
    rows = [
        {"n_prompt": p, "n_gen": 64 - p, "n_depth": d, "avg_ts": d + p + 0.5, "build_commit": "c", "build_number": 7}
        for d in (0, 4096)
        for p in (64, 0)
    ]
    bench = program(tmp_path / "llama-bench", [json.dumps(rows)])
    peer = Peer("llama.cpp", "Q4_0", bench, ["-fa", "1"], Path("file.gguf"), 2)
    assert peer.prefill(64) == 64.5
    assert "-fa 1 -p 64 -n 0" in Path(f"{bench}.called").read_text()
    assert peer.about()["build_commit"] == "c"
    found = peer.at_depths([0, 4096], prefill=64, decode=64)
    assert found == {"prefill 0": 64.5, "decode 0": 0.5, "prefill 4096": 4160.5, "decode 4096": 4096.5}
    assert "-d 0,4096" in Path(f"{bench}.called").read_text()


def test_rates_at_a_depth_are_read_from_the_sweep_of_ik(tmp_path: Path) -> None:
    rows = [json.dumps({"n_kv": n, "speed_pp": n + 0.25, "speed_tg": n + 0.5}) for n in range(0, 4609, 512)]
    bench = program(tmp_path / "llama-sweep-bench", ["", *rows, "timings"])
    peer = Peer("ik", "Q4_0", bench.with_name("llama-bench"), [], Path("file.gguf"), 2)
    found = peer.at_depths([0, 4096], prefill=512, decode=16)
    assert found == {"prefill 0": 0.25, "decode 0": 0.5, "prefill 4096": 4096.25, "decode 4096": 4096.5}
    assert "-c 4608 -b 512 -ub 512 -n 16 --sweep-stride 8" in Path(f"{bench}.called").read_text()


def test_a_peer_that_fails_ends_the_benchmark_with_what_it_said(tmp_path: Path) -> None:
    failing = program(tmp_path / "llama-bench", [])
    failing.write_text("#!/bin/sh\necho no such model >&2\nexit 3\n")
    with pytest.raises(SystemExit, match="ended with 3: no such model"):
        Peer("ik", "Q4_0", failing, [], Path("file.gguf"), 2).decode(8)


def test_the_table_has_a_row_for_each_machine_and_the_later_figures_of_a_day() -> None:
    def record(cpu: str, date: str, median: float) -> dict[str, object]:
        spread = {"median": median, "min": 1.0, "max": 9.0}
        machine = dict.fromkeys("cores memory_gb system kernels read_gb_s int8_top_s instruction".split(), 1)
        part = {"ours": {"tok_s": spread, "of_limit": 0.5}, "ik Q4_0": {"tok_s": spread, "of_limit": None}}
        part["ours_against"] = {"ik Q4_0": spread}
        return {
            "benchmark": "speed", "machine": {"cpu": cpu, "date": date, **machine}, "model": "7b-4bit", "runs": 5,
            "tokens": {"prefill": 512}, "prefill": part, "decode": part,
        }  # fmt: skip

    lines = list(table([record("A", "day 1", 2.0), record("B", "day 1", 3.0), record("A", "day 1", 4.0)]))
    assert [line.split(":")[0] for line in lines[:2]] == ["- A, day 1", "- B, day 1"]
    assert [line.split(" | ")[1:5] for line in lines[-2:]] == [
        ["A, day 1", "4 tok/s", "4 tok/s", "4 (1 to 9)"],
        ["B, day 1", "3 tok/s", "3 tok/s", "3 (1 to 9)"],
    ]
    assert lines[-1].startswith("| decode, 7b-4bit, against ik Q4_0 (5 runs) |")
    assert lines[-1].endswith("| 50 % and ? |")
    assert len(lines) == 2 + 1 + 2 + 4


def test_the_shape_is_that_of_mistral_7b() -> None:
    assert MISTRAL_7B.file_weights + (2 * 32 + 1) * 4096 == 7_241_732_096  # as its model card has it, with the norms
    assert MISTRAL_7B.file_weights - MISTRAL_7B.token_weights == 32000 * 4096


@pytest.mark.parametrize("kind", ["BF16", "Q4_0", "Q4_K", "Q8_0"])
def test_random_weights_of_each_kind_have_the_same_deviation(kind: str, tmp_path: Path) -> None:
    write_gguf(replace(TINY, n_layers=1), tmp_path / "file.gguf", kind)
    tensors = {tensor.name: tensor for tensor in gguf.GGUFReader(tmp_path / "file.gguf").tensors}
    for name, shape in TINY.layer().items():
        tensor = tensors[f"blk.0.{name}.weight"]
        weights = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        assert tensor.tensor_type.name == kind
        assert weights.shape == shape
        assert abs(weights.mean()) < 0.003
        assert abs(weights.std() / DEVIATION - 1) < 0.01


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
def test_depth_ends_with_one_line_of_json(tmp_path) -> None:
    command = [sys.executable, BENCHMARKS / "depth.py", "--work", tmp_path, "--model", "tiny-4bit", "--runs", "1"]
    done = subprocess.run([*command, "--decode", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert [line.startswith("{") for line in lines] == [False] * (len(lines) - 1) + [True]
    record = json.loads(lines[-1])
    assert record["cache"]["position"] == 8 * record["window"] == 2048
    assert record["cache"]["full_against_ring"] == 2048 / 320  # a window of 256 has 320 slots
    assert list(record["depth"]) == ["0", "256", "1024"]
    assert record["depth"]["1024"]["decode"]["full"]["tok_s"]["median"] > 0
    assert record["limits"]["read_gb_s"]["median"] > 0
    folder, *files = MODELS["tiny-4bit"].files(tmp_path)
    assert len(files) == 2
    for path in (folder / "model.safetensors", *files):
        assert abs(path.stat().st_size / MODELS["tiny-4bit"].nbytes - 1) < 0.01


def test_a_file_is_rewritten_as_q4_0(tmp_path: Path) -> None:
    write_gguf(TINY, tmp_path / "source.gguf", "BF16")
    write_q4_0(tmp_path / "source.gguf", tmp_path / "target.gguf")
    source, target = (gguf.GGUFReader(tmp_path / f"{name}.gguf") for name in ("source", "target"))
    counts = ("GGUF.version", "GGUF.tensor_count", "GGUF.kv_count")
    read = [{k: f.contents() for k, f in file.fields.items() if k not in counts} for file in (source, target)]
    assert read[0] == read[1]
    for before, after in zip(source.tensors, target.tensors, strict=True):
        assert (after.name, list(after.shape)) == (before.name, list(before.shape))
        assert after.tensor_type.name == ("F32" if len(before.shape) == 1 else "Q4_0")
        a, b = (gguf.quants.dequantize(t.data, t.tensor_type) for t in (before, after))
        assert np.abs(a - b).max() <= 0.126 * np.abs(a).max()  # one step, where there is no code 8


def test_a_block_for_rows_takes_the_bytes_of_its_weights() -> None:
    weights = sum(rows * columns for rows, columns in TINY.layer().values())
    for bits in (4, 8):
        block = random_block(TINY, bits, seed=0)
        assert block.nbytes == weights * (bits + 0.5) / 8
        h = block.compute(mx.ones((1, 3, TINY.dim)))
        assert h.shape == (1, 3, TINY.dim)
        assert 0.1 < mx.abs(h).mean().item() < 10  # random weights neither kill nor blow up what they multiply

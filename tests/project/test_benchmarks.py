"""The arithmetic of the benchmarks, and one whole benchmark on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mistral_mlx.kernels import native

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # scripts beside each other, not a package

from common import alternate, ratio  # noqa: E402
from models import MISTRAL_7B, MODELS  # noqa: E402


def test_sides_take_turns_and_every_other_round_goes_backwards() -> None:
    order = []
    values = alternate(3, {name: lambda n=name: order.append(n) or len(order) for name in "ab"})
    assert "".join(order) == "ba" + "ab" + "ba" + "ab"
    assert values == {"a": [3, 6, 7], "b": [4, 5, 8]}  # the first round warms up


def test_a_ratio_is_taken_within_a_round() -> None:
    assert ratio([1.0, 8.0, 30.0], [1.0, 4.0, 10.0]) == {"median": 2.0, "min": 1.0, "max": 3.0}


def test_the_shape_is_that_of_mistral_7b() -> None:
    assert MISTRAL_7B.file_weights + (2 * 32 + 1) * 4096 == 7_241_732_096  # as its model card has it, with the norms
    assert MISTRAL_7B.file_weights - MISTRAL_7B.token_weights == 32000 * 4096


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
    assert record["limits"]["read_gb_s"]["median"] > 0
    files = (MODELS["tiny-4bit"].gguf(tmp_path), MODELS["tiny-4bit"].folder(tmp_path) / "model.safetensors")
    assert all(abs(path.stat().st_size / MODELS["tiny-4bit"].nbytes - 1) < 0.01 for path in files)

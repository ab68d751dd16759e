"""The arithmetic of the benchmarks, and one whole benchmark on a tiny model."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import gguf
import pytest

from mistral_mlx.kernels import native

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # scripts beside each other, not a package

from common import alternate, ratio  # noqa: E402
from models import MISTRAL_7B, MODELS, TINY  # noqa: E402
from random_weights import DEVIATION, write_gguf  # noqa: E402


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
    assert record["limits"]["read_gb_s"]["median"] > 0
    folder, *files = MODELS["tiny-4bit"].files(tmp_path)
    assert len(files) == 2
    for path in (folder / "model.safetensors", *files):
        assert abs(path.stat().st_size / MODELS["tiny-4bit"].nbytes - 1) < 0.01

"""The benchmark of the arithmetic's error: its reference, our side of it, what it reads of the peers."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
sys.path.append(str(BENCHMARKS))  # scripts beside each other, not a package

from accuracy import figures  # noqa: E402
from accuracy_ours import cut  # noqa: E402
from accuracy_reference import logits, unpacked  # noqa: E402
from models import MODELS  # noqa: E402
from random_weights import write_folder  # noqa: E402

SAID = """
Mean PPL(Q)                   :  17.100000 ±   0.700000
Mean PPL(base)                :  17.000000 ±   0.700000
Mean PPL(Q)/PPL(base)         :   1.005882 ±   0.000500

====== KL divergence statistics ======
Mean    KLD:   0.002900 ±   0.000010
Maximum KLD:   0.090000
99.0%   KLD:   0.011000
Same top p: 98.500 ± 0.100 %
"""


def test_figures_are_read_from_llama_perplexity() -> None:
    assert figures(SAID) == {
        "mean_kl": 0.0029,
        "p99_kl": 0.011,
        "perplexity": 17.1,
        "reference_perplexity": 17.0,
        "perplexity_ratio": 1.005882,
        "same_top": 0.985,
    }
    with pytest.raises(SystemExit, match="did not print mean_kl, p99_kl"):
        figures(SAID[: SAID.index("Mean    KLD")] + "Same top p: 98.500 ± 0.100 %")


@pytest.mark.parametrize("error", [0.0, 0.1])
def test_our_side_finds_how_far_it_is_from_the_reference(tmp_path: Path, error: float) -> None:
    folder, text, file = tmp_path / "model", tmp_path / "text.txt", tmp_path / "reference.npy"
    write_folder(MODELS["tiny-4bit"], folder)
    text.write_text("one two three four five six seven eight nine ten")
    windows = cut(folder, text, 16, 2)
    args, weights = unpacked(folder)
    expected = np.array([logits(args, weights, window.ids[:-1])[window.first :] for window in windows], np.float32)
    np.save(file, expected + error * np.random.default_rng(0).standard_normal(expected.shape).astype(np.float32))
    command = [sys.executable, BENCHMARKS / "accuracy_ours.py", folder, text, "16", "2", "1", file, "1", "exact"]
    found = json.loads(subprocess.check_output(command))
    for reading in ("prompt", "token_by_token"):
        kl = found[reading]["mean_kl"]
        assert error**2 / 4 < kl < error**2 if error else kl < 1e-5  # noise on all logits: half its variance

"""Measures the error of the arithmetic alone: ours and the peers', each against floats on the same packed weights.

    python benchmarks/accuracy.py --model smollm2-q4_0 --text FILE [--llama-bench PATH] [--ik-bench PATH]

What quantizing costs is another question (quality.py): here the weights are equal, and what differs is how activations
are rounded and sums are made. Ours is compared with the reference of the tests, a forward pass in float64. A peer is
compared with itself on its own file unpacked to float32; llama-quantize and llama-perplexity are taken from the folder
of its llama-bench. All read the same windows of the same text, and the second half of each window is scored.
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import peers
from accuracy_ours import cut
from accuracy_reference import logits, unpacked
from common import FOLDER, figure, parser, progress
from models import TRAINED, ready
from report import finish, machine

from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.measure.evaluation import Window
from mistral_mlx.model.loading import read_args

FLAGS = {"llama.cpp": ("-fa", "on"), "ik": peers.SWEEP_FLAGS}
FIGURES = {
    "mean_kl": r"Mean +KLD: +(\S+)",
    "p99_kl": r"99\.0% +KLD: +(\S+)",
    "perplexity": r"Mean PPL\(Q\) +: +(\S+)",
    "reference_perplexity": r"Mean PPL\(base\) +: +(\S+)",
    "perplexity_ratio": r"Mean PPL\(Q\)/PPL\(base\) +: +(\S+)",
    "same_top": r"Same top p: +(\S+)",
}


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    model = ready(options)
    folder = model.folder(options.work)
    context = min(options.context, read_args(ModelFolder(folder)).max_position_embeddings)
    n_scored = context - context // 2 - 1
    counts = [-(-n // n_scored) for n in (options.tokens, options.single)]
    text = options.text.resolve()
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        reference = Path(work) / "reference.npy"
        _write_reference(folder, cut(folder, text, context, counts[0]), reference)
        ours = {
            arithmetic: _ours(folder, text, context, *counts, reference, options.threads, arithmetic)
            for arithmetic in ("rotated", "exact")
        }
        reference.unlink()
        others = {peer.name: _peer(peer, text, context, counts[0], Path(work)) for peer in peers.chosen(options, model)}
    record = {
        "model": model.name,
        "context": context,
        "n_tokens": {"prompt": counts[0] * n_scored, "token_by_token": counts[1] * n_scored},
        "threads": options.threads,
        "ours": ours,
        "peers": others,
    }
    finish("accuracy", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("The error of the arithmetic alone, on equal weights.")
    options.add_argument("--model", choices=TRAINED, default="smollm2-q4_0", help="trained models alone")
    options.add_argument("--text", type=Path, required=True, help="what is predicted")
    options.add_argument("--context", type=int, default=512, help="tokens of a window, if the model takes so many")
    options.add_argument("--tokens", type=int, default=4096, help="to score, read in prompts")
    options.add_argument("--single", type=int, default=1024, help="to score, read one by one; no more than --tokens")
    peers.add_options(options)
    return options.parse_args()


def _write_reference(folder: Path, windows: list[Window], path: Path) -> None:
    """Write the logits of the scored positions, float32 ``[windows, positions, V]``."""
    args, weights = unpacked(folder)
    shape = (len(windows), len(windows[0].targets), args.vocab_size)
    target = np.lib.format.open_memmap(path, "w+", np.float32, shape)
    for n, window in enumerate(windows):
        target[n] = logits(args, weights, window.ids[:-1])[window.first :]
        progress(f"reference: window {n + 1}/{len(windows)}")
    target.flush()


def _ours(*arguments: object) -> dict[str, object]:
    """Return our figures, of a process of its own."""
    command = [sys.executable, FOLDER / "accuracy_ours.py", *map(str, arguments)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, object] = json.loads(done.stdout)
    return found


def _peer(peer: peers.Peer, text: Path, context: int, n_windows: int, work: Path) -> dict[str, object]:
    """Return a peer's figures, by its own tools."""
    plain, base = work / "f32.gguf", work / "base.dat"
    perplexity = peer.program.with_name("llama-perplexity")
    arguments: list[object] = ["-f", text, "-c", context, "--chunks", n_windows, "-t", peer.threads]
    arguments += ["--kl-divergence-base", base]
    progress(f"{peer.name}: float32")
    peers.run(peer.program.with_name("llama-quantize"), "--allow-requantize", peer.file, plain, "F32")
    peers.run(perplexity, "-m", plain, *arguments)
    plain.unlink()
    progress(f"{peer.name}: {peer.kind}")
    flags = FLAGS[peer.family]
    said = "\n".join(peers.run(perplexity, "-m", peer.file, *arguments, "--kl-divergence", *flags))
    base.unlink()
    return {**figures(said), "flags": " ".join(flags)}


def figures(said: str) -> dict[str, float]:
    """Return the figures that llama-perplexity prints. Raises SystemExit if one is missing."""
    found = {name: re.search(pattern, said) for name, pattern in FIGURES.items()}
    if missing := [name for name, match in found.items() if match is None]:
        raise SystemExit(f"llama-perplexity did not print {', '.join(missing)}: {said[-2000:]}")
    values = {name: float(match[1]) for name, match in found.items() if match}
    return values | {"same_top": figure(values["same_top"] / 100)}


if __name__ == "__main__":
    main()

"""llama.cpp's side of quality.py: quantizes a GGUF file and compares the predictions.

    python benchmarks/quality_llama.py BASE.gguf KIND... < windows.json

The windows are token ids, and from which position on predictions count. A line of JSON is printed for each kind:
perplexity, divergence from the base, bits per weight. Runs in an environment with llama-cpp-python, without ours.
"""

import ctypes
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from numpy.typing import NDArray
from side_llama import Llama

Floats = NDArray[np.float32]


class Scored(Llama):
    """A model that tells the log probabilities of whole windows."""

    def log_probabilities(self, ids: list[int], first: int) -> Floats:
        """Return ``[positions, vocabulary]``: what is predicted at `first` and each later position but the last."""
        self._go_back(0)
        batch = llama_cpp.llama_batch_init(len(ids), 0, 1)
        batch.n_tokens = len(ids)
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.n_seq_id[i], batch.seq_id[i][0] = token, i, 1, 0
            batch.logits[i] = first <= i < len(ids) - 1
        if status := llama_cpp.llama_decode(self.context, batch):
            raise SystemExit(f"llama_decode returned {status}")
        rows = [llama_cpp.llama_get_logits_ith(self.context, i) for i in range(first, len(ids) - 1)]
        logits = np.stack([np.ctypeslib.as_array(row, (self.n_vocab,)) for row in rows])
        self.offset = len(ids)
        llama_cpp.llama_batch_free(batch)
        top = logits.max(-1, keepdims=True)
        result: Floats = logits - top - np.log(np.exp(logits - top).sum(-1, keepdims=True, dtype=np.float64))
        return result.astype(np.float32)

    def close(self) -> None:
        """Give the memory back."""
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def quantize(source: Path, target: Path, kind: str) -> None:
    """Quantize as llama-quantize does, with its own choice of kinds per tensor."""
    options = llama_cpp.llama_model_quantize_default_params()
    options.allow_requantize = True
    options.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    if llama_cpp.llama_model_quantize(str(source).encode(), str(target).encode(), ctypes.byref(options)):
        raise SystemExit(f"llama_model_quantize cannot make {kind}")


def main() -> None:
    """Print a line for each kind, the base first."""
    source, kinds = Path(sys.argv[1]), sys.argv[2:]
    task = json.load(sys.stdin)
    base = Scored(str(source), task["threads"], task["context"])
    expected = [base.log_probabilities(ids, task["first"]) for ids in task["windows"]]
    weights = llama_cpp.llama_model_n_params(base.model)
    base.close()
    nlls = [_nll(p, ids, task["first"]) for p, ids in zip(expected, task["windows"], strict=True)]
    print(json.dumps({"kind": "F32", "perplexity": float(np.exp(np.concatenate(nlls).mean()))}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for kind in kinds:
            target = Path(folder) / f"{kind}.gguf"
            quantize(source, target, kind)
            print(json.dumps({"kind": kind, **_score(target, task, expected, weights)}), flush=True)
            target.unlink()


def _score(file: Path, task: dict[str, Any], expected: list[Floats], weights: int) -> dict[str, float]:
    model = Scored(str(file), task["threads"], task["context"])
    nbytes = llama_cpp.llama_model_size(model.model)
    divergences, nlls, same = [], [], []
    for ids, wanted in zip(task["windows"], expected, strict=True):
        found = model.log_probabilities(ids, task["first"])
        divergences.append((np.exp(wanted) * (wanted - found)).sum(-1, dtype=np.float64))
        same.append(found.argmax(-1) == wanted.argmax(-1))
        nlls.append(_nll(found, ids, task["first"]))
    model.close()
    divergence = np.concatenate(divergences)
    return {
        "bits_per_weight": 8 * nbytes / weights,
        "perplexity": float(np.exp(np.concatenate(nlls).mean())),
        "mean_kl": float(divergence.mean()),
        "kl_error": float(divergence.std() / len(divergence) ** 0.5),
        "p99_kl": float(np.quantile(divergence, 0.99)),
        "same_top": float(np.concatenate(same).mean()),
    }


def _nll(log_probabilities: Floats, ids: list[int], first: int) -> Floats:
    rows = np.arange(len(log_probabilities))
    return -log_probabilities[rows, np.array(ids[first + 1 :])]


if __name__ == "__main__":
    main()

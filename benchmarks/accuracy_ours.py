"""Our side of accuracy.py: a model's predictions of a text against logits that lie in a file.

python benchmarks/accuracy_ours.py FOLDER TEXT CONTEXT WINDOWS SINGLE_WINDOWS REFERENCE.npy THREADS rotated|exact
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import mlx.core as mx
import numpy as np
from common import figure

from mistral_mlx import kernels
from mistral_mlx.measure.evaluation import Logits, Window, evaluate, model_logits, windows
from mistral_mlx.model.cache import make_cache
from mistral_mlx.model.loading import load_model
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.tokenizer.choose import load_tokenizer


def cut(folder: Path, text: Path, context: int, n_windows: int) -> list[Window]:
    """Return the windows that are scored. Raises OptionError if the text is too short for one."""
    tokenizer = load_tokenizer(folder)
    ids = tokenizer.encode(text.read_text("utf-8"))
    return windows(ids, context=context, bos_id=tokenizer.bos_id, limit=n_windows)


def one_by_one(model: Mistral) -> Logits:
    """Return a function that gives the logits of `model`, which reads each window token by token."""

    def logits(window: Window) -> Iterator[mx.array]:
        cache = make_cache(model.args)
        for position, token in enumerate(window.ids[:-1]):
            row = model(mx.array([[token]]), cache)[0]
            mx.eval(row)
            if position >= window.first:
                yield row

    return logits


def main() -> None:
    """Print the figures of prompts, and of tokens read one by one, as JSON."""
    folder, text, reference = (Path(sys.argv[n]) for n in (1, 2, 6))
    context, n_windows, n_single, threads = (int(sys.argv[n]) for n in (3, 4, 5, 7))
    mx.set_default_device(mx.cpu)
    kernels.set_threads(threads)
    kernels.set_exact(sys.argv[8] == "exact")
    model = load_model(folder)
    found = cut(folder, text, context, n_windows)
    expected = dict(zip(found, np.load(reference, mmap_mode="r"), strict=True))

    def measured(chosen: list[Window], logits: Logits) -> dict[str, float]:
        result = evaluate(chosen, logits, lambda window: iter([mx.array(expected[window])]))
        compared = result.comparison
        assert compared is not None
        return {
            "mean_kl": figure(compared.kl.value),
            "kl_error": figure(compared.kl.error),
            "p99_kl": figure(compared.kl_percentiles["99"]),
            "perplexity": round(result.perplexity.value, 6),
            "reference_perplexity": round(compared.reference_perplexity.value, 6),
            "perplexity_ratio": round(compared.perplexity_ratio.value, 8),
            "same_top": figure(compared.same_top.value),
        }

    record = {
        "kernels": kernels.names(),
        "prompt": measured(found, model_logits(model)),
        "token_by_token": measured(found[:n_single], one_by_one(model)),
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()

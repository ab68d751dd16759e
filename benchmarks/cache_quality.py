"""Measures what 8-bit keys and values, or a shorter window with sinks, cost a model: KL and perplexity.

    python benchmarks/cache_quality.py FOLDER --text TEXT [--context 4096] [--choices 8 512+4 ...]

A choice is the bits of the cache, or WINDOW+SINKS, or all three, as 512+4,8. Each is compared with the cache that
config.json implies, with 16 bits, in the same arithmetic; with --exact activations are rounded so finely that nothing
but the cache differs. Of every window of token ids the second half is scored.
"""

import argparse
import re
from pathlib import Path
from typing import Any

from common import figure, parser, progress
from report import finish, machine

from mistral_mlx import kernels
from mistral_mlx.measure.evaluation import evaluate, model_logits, windows
from mistral_mlx.model.cache import cache_nbytes
from mistral_mlx.model.cache_options import CacheOptions
from mistral_mlx.model.loading import load, load_model

CHOICES = ("8", "512+0", "512+4", "512+16", "512+4,8")


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    kernels.set_exact(options.exact)
    model, tokenizer = load(options.folder)
    bos_id = tokenizer.bos_id if tokenizer.add_bos else None
    ids = tokenizer.encode(options.text.read_text("utf-8"), bos=tokenizer.add_bos)
    cut = windows(ids, context=options.context, bos_id=bos_id, limit=options.windows)
    reference = model_logits(model)
    full_nbytes = cache_nbytes(model.args, options.context, itemsize=2)
    rows: dict[str, dict[str, Any]] = {}
    for choice in options.choices:
        chosen = load_model(options.folder, **vars(parsed(choice)))
        found = evaluate(cut, model_logits(chosen), reference).comparison
        assert found is not None
        rows[choice] = {
            "mean_kl": figure(found.kl.value),
            "kl_error": figure(found.kl.error),
            "p99_kl": figure(found.kl_percentiles["99"]),
            "perplexity_ratio": found.perplexity_ratio.value,
            "same_top": figure(found.same_top.value),
            "bytes_ratio": figure(full_nbytes / cache_nbytes(chosen.args, options.context, itemsize=2)),
        }
        progress(f"{choice}: {rows[choice]}")
    record = {"model": options.folder.name, "context": options.context, "n_windows": len(cut), "exact": options.exact}
    finish("cache_quality", record | {"choices": rows}, described, options)


def parsed(choice: str) -> CacheOptions:
    """Return the options that WINDOW+SINKS,BITS names; either part may be left out."""
    found = re.fullmatch(r"(?:(\d+)\+(\d+))?,?(\d+)?", choice)
    if not choice or found is None:
        raise SystemExit(f"{choice!r} is not BITS, WINDOW+SINKS or WINDOW+SINKS,BITS")
    window, sinks, bits = found.groups()
    return CacheOptions(int(window) if window else None, int(sinks or 0), int(bits or 16))


def _options() -> argparse.Namespace:
    options = parser("What each choice of the cache costs.")
    options.add_argument("folder", type=Path, help="a model folder")
    options.add_argument("--text", type=Path, required=True, help="what is measured on")
    options.add_argument("--context", type=int, default=4096, help="tokens of a window")
    options.add_argument("--windows", type=int, default=4, help="at most")
    options.add_argument("--choices", nargs="+", default=CHOICES, help="of the cache")
    options.add_argument("--exact", action="store_true", help="round activations to 16 bits")
    return options.parse_args()


if __name__ == "__main__":
    main()

"""Measures what the window saves: decoding far past it, attention, bytes of the cache.

    python benchmarks/depth.py --model 7b-4bit

The far position is eight windows (32,768 for W = 4,096). The cache is not filled by a prompt but with random keys and
values, which cost the same; "full" is the same model's cache and attention without a window.
"""

import argparse

import sides
from common import Side, alternate, parser, ratio, spread
from limits import Limits
from models import check_memory, ready
from report import finish, machine

N_WINDOWS = 8
N_ATTENTION_WINDOWS = 4


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    model = ready(options)
    window = model.shape.window
    if window is None:
        raise SystemExit(f"{model.name} has no window; a model of Mistral 7B's shape has")
    check_memory(model)
    near, far, n_attention = window, N_WINDOWS * window, N_ATTENTION_WINDOWS * window
    with sides.ours(options, model) as ours:
        limits = Limits(options, ours.read_bandwidth)
        measures = {
            "near": lambda: options.decode / ours.seconds("decode", n=options.decode, depth=near),
            "far": lambda: options.decode / ours.seconds("decode", n=options.decode, depth=far),
            "windowed": lambda: ours.seconds("attention", n=n_attention, window=window),
            "full": lambda: ours.seconds("attention", n=n_attention, window=None),
        }
        values = alternate(options.runs, measures | limits.measures())
        record = {
            "model": model.name,
            "ours": ours.about,
            "threads": options.threads,
            "runs": options.runs,
            "tokens": options.decode,
            "window": window,
            "limits": limits.record(values),
            "decode": {
                "near_position": near,
                "far_position": far,
                "far_against_near": ratio(values["far"], values["near"]),
                "near_tok_s": spread(values["near"]),
                "far_tok_s": spread(values["far"]),
            },
            "attention": {
                "tokens": n_attention,
                "windowed_against_full": ratio(values["full"], values["windowed"]),  # how many times faster
                "pairs_full_against_windowed": _pairs(n_attention, None) / _pairs(n_attention, window),
                "windowed_s": spread(values["windowed"]),
                "full_s": spread(values["full"]),
            },
            "cache": _cache(ours, far),
        }
    finish("depth", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("Decoding far behind the window, attention alone, and the bytes of the cache.")
    options.add_argument("--model", default="7b-4bit", help="one of those in models.py")
    options.add_argument("--decode", type=int, default=16, help="tokens decoded one by one")
    return options.parse_args()


def _pairs(n: int, window: int | None) -> int:
    """Return how many pairs of a query and a key `n` tokens see: what attention cannot save."""
    full = n * (n + 1) // 2
    return full if window is None else full - (n - window) * (n - window + 1) // 2


def _cache(ours: Side, far: int) -> dict[str, object]:
    """Return the bytes of a cache that has reached `far`, and of one without a window there."""
    ours.ask("decode", n=1, depth=far - 1)
    ring, full = ours.ask("cache_nbytes"), ours.ask("full_cache_nbytes", depth=far)
    return {
        "position": ring["position"],
        "ring_bytes": ring["nbytes"],
        "full_bytes": full["nbytes"],
        "full_against_ring": full["nbytes"] / ring["nbytes"],
    }


if __name__ == "__main__":
    main()

"""Measures what a long text costs: prefill and decode far behind its beginning, attention, bytes of the cache.

    python benchmarks/depth.py --model 7b-4bit [--llama-bench PATH] [--ik-bench PATH]

The depths are no tokens, one window and four (0, 4,096 and 16,384 for W = 4,096), and for our decoding eight (32,768).
Our cache is not filled by a prompt but with random keys and values, which cost the same; "full" is the same model
without a window, "8 bits" ours with keys and values of 8 bits. The peers read a prompt up to each depth, and have no
window: compare "full" with them for equal work. The processes of the peers warm up by themselves, so there is no round
before the first.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

import peers
import sides
from common import Measure, Side, alternate, parser, ratio, ratios, spread
from limits import Limits
from models import check_memory, ready
from report import finish, machine

DEPTHS = (0, 1, 4)  # in windows
FAR = 8
WAYS: dict[str, dict[str, int]] = {"ours": {}, "full": {"full": True}, "8 bits": {"kv_bits": 8}}

Rates = dict[str, list[float]]


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    model = ready(options)
    window = model.shape.window
    if window is None:
        raise SystemExit(f"{model.name} has no window; a model of Mistral 7B's shape has")
    others = peers.chosen(options, model)
    check_memory(model, *[model] * bool(others))
    n_prefill, n_decode = min(options.prefill, window), options.decode
    depths, far = [n * window for n in DEPTHS], FAR * window
    with sides.ours(options, model) as ours:
        limits = Limits(options, ours.read_bandwidth)
        measures = _ours(ours, depths, n_prefill, n_decode)
        measures |= {"ours far": partial(ours.rate, "decode", n_decode, depth=far)}
        measures |= _attention(ours, depths[-1], window)
        measures |= {peer.name: _peer(peer, depths, n_prefill, n_decode) for peer in others}
        ours.ask("decode", n=1)
        ours.ask("prefill", n=n_prefill)
        values = alternate(options.runs, measures | limits.measures(), warmup=0)
        record = {
            "model": model.name,
            "ours": ours.about,
            "peers": {peer.name: peer.about() for peer in others},
            "threads": options.threads,
            "runs": options.runs,
            "tokens": {"prefill": n_prefill, "decode": n_decode},
            "window": window,
            "limits": limits.record(values),
            "depth": {str(depth): _at(depth, [peer.name for peer in others], values) for depth in depths},
            "far": {
                "position": far,
                "tok_s": spread(values["ours far"]),
                "against_window": ratio(values["ours far"], values[f"ours decode {window}"]),
            },
            "attention": {
                "tokens": depths[-1],
                "windowed_against_full": ratio(values["attention full"], values["attention windowed"]),  # times faster
                "pairs_full_against_windowed": _pairs(depths[-1], None) / _pairs(depths[-1], window),
                "windowed_s": spread(values["attention windowed"]),
                "full_s": spread(values["attention full"]),
            },
            "cache": _cache(ours, far),
        }
    finish("depth", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("Prefill and decode far behind the beginning, attention alone, and the bytes of the cache.")
    options.add_argument("--model", default="7b-4bit", help="one of those in models.py")
    peers.add_options(options)
    options.add_argument("--prefill", type=int, default=512, help="tokens of the prompt at each depth")
    options.add_argument("--decode", type=int, default=16, help="tokens decoded one by one")
    return options.parse_args()


def _ours(ours: Side, depths: Sequence[int], n_prefill: int, n_decode: int) -> dict[str, Measure]:
    """Return what measures our tokens per second at each depth, in each way that differs there."""
    return {
        f"{name} {what} {depth}": partial(ours.rate, what, n, depth=depth, **how)
        for depth in depths
        for name, how in WAYS.items()
        if depth or name == "ours"
        for what, n in (("prefill", n_prefill), ("decode", n_decode))
    }


def _attention(ours: Side, n: int, window: int) -> dict[str, Measure]:
    """Return what measures the seconds of one layer's attention over a prompt."""
    return {
        "attention windowed": lambda: ours.seconds("attention", n=n, window=window),
        "attention full": lambda: ours.seconds("attention", n=n, window=None),
    }


def _peer(peer: peers.Peer, depths: Sequence[int], n_prefill: int, n_decode: int) -> Callable[[], dict[str, float]]:
    return lambda: peer.at_depths(depths, prefill=n_prefill, decode=n_decode)


def _at(depth: int, names: list[str], values: Rates) -> dict[str, object]:
    """Return the figures of all programs at one depth."""
    return {what: _compared(f"{what} {depth}", names, values) for what in ("prefill", "decode")}


def _compared(label: str, names: list[str], values: Rates) -> dict[str, object]:
    found = {name: values[f"{name} {label}"] for name in names}
    ours = {name: values[f"{name} {label}"] for name in WAYS if f"{name} {label}" in values}
    return {
        **({"8_bits_against_16": ratio(ours["8 bits"], ours["ours"])} if "8 bits" in ours else {}),
        **{name: {"tok_s": spread(rates)} for name, rates in (ours | found).items()},
        **{f"{name}_against": ratios(rates, found) for name, rates in ours.items()},
    }


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

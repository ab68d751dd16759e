"""Measures prefill and decode in turns, ours against a peer.

    python benchmarks/speed.py --model 7b-4bit [--peer llama.cpp|mlx-lm]

mlx-lm takes seconds to minutes for a token of a 7B on a CPU, so it gets a few tokens only. It multiplies the rows of
a prompt one by one, so its rate hardly depends on how many there are.
"""

import argparse
from collections.abc import Callable

import sides
from common import Side, alternate, figure, parser, ratio
from limits import Limits, decode_rate, prefill_rate
from models import BenchmarkModel, check_memory, ready
from report import finish, machine

MLX_LM_TOKENS = {"prefill": 4, "decode": 2}


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    model = ready(options)
    check_memory(model, model)
    tokens = {"prefill": options.prefill, "decode": options.decode}
    tokens = {"ours": tokens, "peer": MLX_LM_TOKENS if options.peer == "mlx-lm" else tokens}
    with sides.ours(options, model) as ours, _peer(options, model) as peer:
        limits = Limits(options, ours.read_bandwidth)
        measures = {
            f"{what} {name}": _rate(side, what, tokens[name][what], options.depth)
            for what in ("prefill", "decode")
            for name, side in (("ours", ours), ("peer", peer))
        }
        rates = alternate(options.runs, measures | limits.measures())
        record = {
            "model": model.name,
            "ours": ours.about,
            "peer": peer.about,
            "threads": options.threads,
            "runs": options.runs,
            "tokens": tokens,
            "depth": options.depth,
            "idle_cores": {"ours": figure(ours.idle_share), "peer": figure(peer.idle_share)},
            "limits": limits.record(rates),
            **{
                what: {"ratio": ratio(rates[f"{what} ours"], rates[f"{what} peer"])}
                | {name: measure(model, rates[f"{what} {name}"], rates) for name in ("ours", "peer")}
                for what, measure in (("prefill", prefill_rate), ("decode", decode_rate))
            },
        }
    finish("speed", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("Prefill and decode, ours against a peer, in turns.")
    options.add_argument("--model", default="7b-4bit", help="one of those in models.py")
    options.add_argument("--peer", choices=("llama.cpp", "mlx-lm"), default="llama.cpp", help="the other side")
    options.add_argument("--prefill", type=int, default=512, help="tokens of the prompt")
    options.add_argument("--decode", type=int, default=32, help="tokens decoded one by one")
    options.add_argument("--depth", type=int, default=0, help="position of the first of them")
    return options.parse_args()


def _peer(options: argparse.Namespace, model: BenchmarkModel) -> Side:
    if options.peer == "mlx-lm":
        return sides.mlx_lm(options, model)
    return sides.llama(options, model, max(options.prefill, options.depth + options.decode))


def _rate(side: Side, what: str, n_tokens: int, depth: int) -> Callable[[], float]:
    """Return what measures the tokens per second of a side."""
    arguments = {"n": n_tokens} | ({"depth": depth} if what == "decode" else {})
    return lambda: n_tokens / side.seconds(what, **arguments)


if __name__ == "__main__":
    main()

"""Measures prefill and decode in turns, ours against each peer and against the fastest one of each round.

    python benchmarks/speed.py --model 7b-4bit --llama-bench PATH --ik-bench PATH [--mlx-lm]

A peer that is llama-bench runs as a process for each measurement: it loads the model and warms up, and reports the rate
of the work alone. mlx-lm takes seconds to minutes for a token of a 7B on a CPU, so it gets a few tokens only. It
multiplies the rows of a prompt one by one, so its rate hardly depends on how many there are.
"""

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import peers
import sides
from common import Side, alternate, figure, parser, ratios
from limits import Limits, decode_rate, prefill_rate
from models import BenchmarkModel, check_memory, ready
from report import finish, machine

MLX_LM_TOKENS = {"prefill": 4, "decode": 2}

Rates = dict[str, list[float]]


def main() -> None:
    """Measure and report."""
    options = _options()
    if not (options.llama_bench or options.ik_bench or options.mlx_lm):
        raise SystemExit("name a peer: --llama-bench, --ik-bench or --mlx-lm")
    described = machine(options)
    model = ready(options)
    check_memory(model, model)
    tokens = {what: n for what in ("prefill", "decode") if (n := getattr(options, what)) > 0}
    others = peers.chosen(options, model)
    with sides.ours(options, model) as ours, _mlx_lm(options, model) as mlx_lm:
        limits = Limits(options, ours.read_bandwidth)
        measures = {what: _measures(what, n, ours, others, mlx_lm) for what, n in tokens.items()}
        names = list(next(iter(measures.values())))[1:]
        flat = {f"{what} {name}": measure for what, all_ in measures.items() for name, measure in all_.items()}
        rates = alternate(options.runs, flat | limits.measures())
        record = {
            "model": model.name,
            "ours": ours.about,
            "peers": {peer.name: peer.about() for peer in others} | ({"mlx-lm": mlx_lm.about} if mlx_lm else {}),
            "threads": options.threads,
            "runs": options.runs,
            "tokens": tokens | ({"mlx-lm": MLX_LM_TOKENS} if mlx_lm else {}),
            "idle_cores": figure(ours.idle_share),
            "limits": limits.record(rates),
        }
        per_token = {"prefill": partial(prefill_rate, model), "decode": partial(decode_rate, model)}
        record |= {what: _compared(what, names, rates, per_token[what]) for what in tokens}
    finish("speed", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("Prefill and decode, ours against peers, in turns.")
    options.add_argument("--model", default="7b-4bit", help="one of those in models.py")
    peers.add_options(options)
    options.add_argument("--mlx-lm", action="store_true", help="mlx-lm is a peer, too")
    options.add_argument("--prefill", type=int, default=512, help="tokens of the prompt; 0: none is read")
    options.add_argument("--decode", type=int, default=64, help="tokens decoded one by one; 0: none")
    return options.parse_args()


@contextmanager
def _mlx_lm(options: argparse.Namespace, model: BenchmarkModel) -> Iterator[Side | None]:
    if not options.mlx_lm:
        yield None
        return
    with sides.mlx_lm(options, model) as side:
        yield side


def _measures(
    what: str, n: int, ours: Side, others: list[peers.Peer], mlx_lm: Side | None
) -> dict[str, Callable[[], float]]:
    """Return what measures the tokens per second of each program, ours first."""
    found: dict[str, Callable[[], float]] = {"ours": partial(_rate, ours, what, n)}
    found |= {peer.name: partial(getattr(peer, what), n) for peer in others}
    return found | ({"mlx-lm": partial(_rate, mlx_lm, what, MLX_LM_TOKENS[what])} if mlx_lm else {})


def _rate(side: Side, what: str, n: int) -> float:
    return n / side.seconds(what, **{"n": n} | ({"depth": 0} if what == "decode" else {}))


def _compared(
    what: str, names: list[str], rates: Rates, describe: Callable[[list[float], Rates], dict[str, object]]
) -> dict[str, object]:
    """Return the rates of all programs, and the ratios of ours to each peer's and to the fastest one's."""
    found = {name: rates[f"{what} {name}"] for name in names}
    return {
        "ours": describe(rates[f"{what} ours"], rates),
        **{name: describe(values, rates) for name, values in found.items()},
        "ours_against": ratios(rates[f"{what} ours"], found),
    }


if __name__ == "__main__":
    main()

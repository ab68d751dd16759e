"""Measures decoding with one busy core against none, for this program and llama.cpp.

    python benchmarks/busy.py --model 7b-4bit

With as many threads as cores, a fair share of C cores is (C - 1/2) / C: the other process takes half of one.
"""

import argparse
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import sides
from common import Side, alternate, figure, parser, ratio
from limits import Limits, decode_rate
from models import check_memory, ready
from report import finish, machine

BUSY = "while True: pass"


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    model = ready(options)
    check_memory(model, model)
    with sides.ours(options, model) as ours, sides.llama(options, model, options.decode) as peer, _busy() as other:
        limits = Limits(options, ours.read_bandwidth)

        def rate(side: Side, *, busy: bool) -> float:
            other.send_signal(signal.SIGCONT if busy else signal.SIGSTOP)
            try:
                return float(options.decode / side.seconds("decode", n=options.decode, depth=0))
            finally:
                other.send_signal(signal.SIGSTOP)

        measures = {
            "ours alone": lambda: rate(ours, busy=False),
            "ours busy": lambda: rate(ours, busy=True),
            "peer alone": lambda: rate(peer, busy=False),
            "peer busy": lambda: rate(peer, busy=True),
        }
        rates = alternate(options.runs, measures | limits.measures())
        record = {
            "model": model.name,
            "ours": ours.about,
            "peer": peer.about,
            "threads": options.threads,
            "runs": options.runs,
            "tokens": options.decode,
            "idle_cores": {"ours": figure(ours.idle_share), "peer": figure(peer.idle_share)},
            "limits": limits.record(rates),
            "busy_against_alone": {
                name: ratio(rates[f"{name} busy"], rates[f"{name} alone"]) for name in ("ours", "peer")
            },
            "busy_ours_against_peer": ratio(rates["ours busy"], rates["peer busy"]),
            **{name.replace(" ", "_"): decode_rate(model, rates[name], rates) for name in measures},
        }
    finish("busy", record, described, options)


def _options() -> argparse.Namespace:
    options = parser("Decoding while one other process keeps a core busy, against the same undisturbed.")
    options.add_argument("--model", default="7b-4bit", help="one of those in models.py")
    options.add_argument("--decode", type=int, default=32, help="tokens decoded one by one")
    return options.parse_args()


@contextmanager
def _busy() -> Iterator["subprocess.Popen[bytes]"]:
    """Start a process that counts for ever, and stop it: SIGCONT lets it run."""
    other = subprocess.Popen([sys.executable, "-c", BUSY])
    other.send_signal(signal.SIGSTOP)
    try:
        yield other
    finally:
        other.kill()
        other.wait()


if __name__ == "__main__":
    main()

"""Prints one Markdown table of all results that were kept with --results.

    python benchmarks/table.py FOLDER

Each row names its CPU and day. Where a benchmark was run twice on a day, the later figures count.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

HEAD = ("what", "CPU, day", "ours", "peer", "ratio", "share of the limit, ours and peer")
Record = dict[str, Any]


class Row(NamedTuple):
    """One comparison, as text."""

    what: str
    ours: str
    peer: str = "—"
    ratio: str = "—"
    share: str = ""


def main() -> None:
    """Print the machines, and then the table."""
    options = argparse.ArgumentParser(description="Print the results as a Markdown table.", allow_abbrev=False)
    options.add_argument("folder", type=Path, help="with files of JSON lines")
    files = sorted(options.parse_args().folder.glob("*.jsonl"))
    print("\n".join(table([json.loads(line) for path in files for line in path.read_text().splitlines()])))


def table(records: list[Record]) -> Iterator[str]:
    """Yield the lines: a list of machines, and a row for each comparison on each of them."""
    machines = {_machine(record): record["machine"] for record in records}
    yield from (f"- {name}: {_described(machine)}" for name, machine in machines.items())
    cells = {(row.what, _machine(record)): row for record in records for row in rows(record)}
    order = list(dict.fromkeys(what for what, _ in cells))
    yield ""
    yield f"| {' | '.join(HEAD)} |"
    yield "|---" * len(HEAD) + "|"
    for what in order:
        for name in machines:
            if row := cells.get((what, name)):
                yield f"| {' | '.join((what, name, *row[1:]))} |"


def rows(record: Record) -> Iterator[Row]:
    """Yield the comparisons in the record of one run."""
    yield from {"speed": _speed, "depth": _depth, "rows": _rows, "accuracy": _accuracy, "busy": _busy}.get(
        record["benchmark"], _others
    )(record)


def _speed(record: Record) -> Iterator[Row]:
    for what in ("prefill", "decode"):
        if (part := record.get(what)) is None:  # it was not measured
            continue
        n = f" of {record['tokens']['prefill']}" if what == "prefill" else ""
        for peer, ratio in part["ours_against"].items():
            theirs = part.get(peer)
            share = f"{_percent(part['ours'])} and {_percent(theirs)}" if theirs else _percent(part["ours"])
            tok_s = _rate(theirs) if theirs else "—"
            name = f"{what}{n}, {record['model']}, against {peer} ({record['runs']} runs)"
            yield Row(name, _rate(part["ours"]), tok_s, _spread(ratio), share)


def _depth(record: Record) -> Iterator[Row]:
    for depth, parts in record["depth"].items():
        for what, part in parts.items():
            label = f"{what} at {int(depth):,}, {record['model']}"
            for ours in ("ours", "full"):
                window = ", without a window" if ours == "full" else ""
                if ours in part and not part[f"{ours}_against"]:
                    yield Row(f"{label}{window}", _rate(part[ours]))
                for peer, ratio in part.get(f"{ours}_against", {}).items():
                    theirs = _rate(part[peer]) if peer in part else "—"
                    yield Row(f"{label}{window}, against {peer}", _rate(part[ours]), theirs, _spread(ratio))


def _rows(record: Record) -> Iterator[Row]:
    one = record["milliseconds"]["1"]["median"]
    for n, ratio in record["against_one_row"].items():
        what = f"pass of {n} rows against one, {record['shape']} block, {record['bits']} bits"
        yield Row(what, f"{record['milliseconds'][n]['median']:g} and {one:g} ms", ratio=_spread(ratio))


def _accuracy(record: Record) -> Iterator[Row]:
    for arithmetic, readings in record["ours"].items():
        for reading in ("prompt", "token_by_token"):
            what = f"KL of the arithmetic, {record['model']}, {arithmetic}, {reading.replace('_', ' ')}"
            yield Row(f"{what} ({record['n_tokens'][reading]:,} tokens)", _divergence(readings[reading]))
    for peer, found in record["peers"].items():
        what = f"KL of the arithmetic, {record['model']}, {peer} ({record['n_tokens']['prompt']:,} tokens)"
        yield Row(what, "—", _divergence(found))


def _busy(record: Record) -> Iterator[Row]:
    ours, peer = (record["busy_against_alone"][name]["median"] for name in ("ours", "peer"))
    what = f"decode, {record['model']}, with one busy core against none"
    yield Row(what, f"{ours:.2f}", f"{peer:.2f}", _spread(record["busy_ours_against_peer"]))


def _others(record: Record) -> Iterator[Row]:
    """Yield every ratio of a benchmark that has no row of its own kind."""
    for name, value in record.items():
        if isinstance(value, dict) and value.keys() == {"median", "min", "max"}:
            yield Row(f"{record['benchmark']}, {record['model']}: {name.replace('_', ' ')}", "", ratio=_spread(value))
        elif isinstance(value, dict) and name not in ("machine", "limits"):
            inner = {"benchmark": f"{record['benchmark']}, {name.replace('_', ' ')}", "model": record["model"], **value}
            yield from _others(inner)


def _machine(record: Record) -> str:
    return f"{record['machine']['cpu']}, {record['machine']['date']}"


def _described(machine: Record) -> str:
    peak = machine["int8_top_s"]
    limits = f"reads {machine['read_gb_s'] or '?'} GB/s" + (
        f", {peak} Top/s of {machine['instruction']}" if peak else ""
    )
    return f"{machine['cores']} cores, {machine['memory_gb']} GB, {machine['system']}, {machine['kernels']}, {limits}"


def _rate(part: Record) -> str:
    return f"{part['tok_s']['median']:g} tok/s"


def _percent(part: Record) -> str:
    return "?" if part["of_limit"] is None else f"{100 * part['of_limit']:.0f} %"


def _spread(value: Record) -> str:
    return f"{value['median']:.3g} ({value['min']:.3g} to {value['max']:.3g})"


def _divergence(found: Record) -> str:
    return f"{found['mean_kl']:.2g} nats, {100 * (found['perplexity_ratio'] - 1):+.4f} %"


if __name__ == "__main__":
    main()

"""``export``: what is said of a GGUF file that was written."""

import json
import sys
from collections.abc import Iterator

from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.streams import note, write_text
from mistral_mlx.convert.export.gguf_export import ExportReport


def show(report: ExportReport, *, as_json: bool, quiet: bool) -> None:
    """Write the report: as JSON to stdout, or for people to stderr."""
    if as_json:
        write_text(json.dumps(report.as_dict(), ensure_ascii=False) + "\n")
    elif not quiet:
        for line in _lines(report):
            print(inert(line), file=sys.stderr)
        for remark in report.notes:
            note(remark)


def _lines(report: ExportReport) -> Iterator[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    yield f"{report.source} became {report.target} in {report.seconds:.1f} s"
    yield f"  size          {report.nbytes / 1e6:.1f} MB"
    loss = "" if report.rounding else " without loss"
    yield f"  tensors       {kinds}" + (f"; {report.carried} carried over{loss}" if report.carried else "")

"""The report of ``export`` on the GGUF file that it wrote."""

from collections.abc import Iterator

from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.table import gigabytes, print_json, rounded
from mistral_mlx.convert.export.gguf_export import ExportReport


def show(report: ExportReport, notes: Notes, *, as_json: bool) -> None:
    """Write the report: as JSON to stdout, or for people to stderr."""
    if as_json:
        print_json(rounded(report.as_dict()))
        return
    notes.report(_lines(report))
    for remark in report.notes:
        notes.say(remark)


def _lines(report: ExportReport) -> Iterator[str]:
    kinds = ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())
    yield f"{report.source} became {report.target} in {report.seconds:.1f} s"
    yield f"  size          {gigabytes(report.nbytes)}"
    loss = "" if report.rounding else " without loss"
    yield f"  tensors       {kinds}" + (f"; {report.carried} carried over{loss}" if report.carried else "")

"""``convert``: shows a conversion while it runs, and reports what it kept and what it cost."""

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mistral_mlx.cli.models import names
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.table import gigabytes, print_json, rounded, table
from mistral_mlx.convert import Report
from mistral_mlx.convert.plan.outlook import N_TOKENS, Outlook
from mistral_mlx.errors import counted, shown
from mistral_mlx.kernels.memory import available_memory
from mistral_mlx.measure.scores import Evaluation
from mistral_mlx.progress import Progress

N_SHOWN = 5  # rows of a list


def remarking(remark: str | None, notes: Notes, progress: Progress) -> Progress:
    """Return a callback that says `remark` at its first call, when no option has been refused, and shows progress."""
    left = [remark] if remark else []

    def show(what: str, done: int, total: int) -> None:
        if left:
            notes.say(left.pop())
        progress(what, done, total)

    return show


def default_target(source: Path, how: str, *, named: str | None = None) -> Path:
    """Return the folder to write when none is given: beside the source, called after it and `how` it is packed.

    It is in the current folder if the source was `named`.
    """
    if named is not None:
        return Path.cwd() / f"{names.file_name(named)}-{how or 'mlx'}"
    source = source.expanduser().absolute()
    name = source.stem if source.suffix == ".gguf" else source.name
    return source.parent / f"{name}-mlx{f'-{how}' if how else ''}"


def spelled(model: str | Path) -> str:
    """Return a name or a path as it is typed in a shell; a path can be told from a name."""
    if isinstance(model, Path):
        model = os.path.relpath(model) if Path(os.path.abspath(model)).is_relative_to(Path.cwd()) else str(model)
        model = model if names.is_path(model) else f"./{model}"
    return shlex.quote(model)


def show(report: Report, notes: Notes, *, asked: str = "", as_json: bool) -> None:
    """Write the report: as JSON to stdout, or for people to stderr. `asked` are the options as they are typed."""
    if as_json:
        print_json(rounded(report.as_dict()))
    else:
        notes.report(_lines(report, asked))
        for remark in report.notes:
            notes.say(remark)
    if report.unverified is not None:
        target = shown(report.target, limit=200)
        notes.error(f"{target} is written, but it could not be compared with its source: {report.unverified}")


def _lines(report: Report, asked: str) -> Iterator[str]:
    verb = "would become" if report.dry_run else "became"
    yield f"{report.source} {verb} {report.target}" + ("" if report.dry_run else f" in {report.seconds:.1f} s")
    yield (
        f"  size          {gigabytes(report.source_bytes)} -> {gigabytes(report.target_bytes)}, "
        f"{report.bits_per_weight:.2f} bits per weight, {report.parameters:,} weights"
    )
    if report.dry_run:
        yield f"  disk          {gigabytes(report.needed_bytes)} needed, {gigabytes(report.free_bytes)} free"
    if report.verified is not None and report.verdict is not None:
        yield from _verified(report.verified, report.verdict)
    yield from _list("  worst errors  ", [f"{error:.2%} of the norm of {name}" for name, error in report.errors])
    yield from _list("  not quantized ", list(_by_layer(report.kept)))
    if report.choices:
        yield from _choices(_with_asked(report, asked), report.target_bytes, available_memory())


def _verified(found: Evaluation, verdict: str) -> Iterator[str]:
    """Yield what the result lost against its source."""
    assert found.comparison is not None
    compared = found.comparison
    kl, kl_99 = compared.kl, compared.kl_percentiles["99"]
    ratio, error = compared.perplexity_ratio
    change = f"{ratio - 1:+.2%} ± {error:.2%}" if ratio <= 2 else f"{ratio:.3g} times"
    yield f"  lost          {verdict}: the same next token {compared.same_top.value:.2%} of the time"
    yield f"                KL divergence {kl.value:.4g} ± {kl.error:.2g} (99 %: {kl_99:.3g})"
    yield (
        f"                perplexity {compared.reference_perplexity.value:.4g} -> {found.perplexity.value:.4g} "
        f"({change}), {counted(found.n_tokens, 'token')}"
    )


def _with_asked(report: Report, asked: str) -> list[Outlook]:
    """Return the choices, with one for the options that were `asked` for if no other makes as many bytes."""
    if any(choice.nbytes == report.target_bytes for choice in report.choices):
        return report.choices
    cache = report.choices[0].memory_bytes - report.choices[0].nbytes
    own = Outlook(asked, report.target_bytes, report.bits_per_weight, report.target_bytes + cache)
    return sorted([*report.choices, own], key=lambda choice: -choice.nbytes)


def _choices(choices: list[Outlook], wanted: int, memory: int | None) -> Iterator[str]:
    """Yield a table of what could be made, what makes `wanted` bytes marked, and whether it fits into memory."""
    rows = [("", "OPTIONS", "SIZE", "BITS", f"MEMORY FOR {N_TOKENS:,} TOKENS", "FITS HERE")]
    for choice in choices:
        fits = "" if memory is None else "yes" if choice.memory_bytes <= memory else "no"
        mark, sizes = (
            "->" if choice.nbytes == wanted else "",
            (gigabytes(choice.nbytes), gigabytes(choice.memory_bytes)),
        )
        rows.append((mark, choice.options or "no option", sizes[0], f"{choice.bits_per_weight:.2f}", sizes[1], fits))
    yield "\n" + table(rows).rstrip("\n")
    if memory is not None:
        yield f"  {gigabytes(memory)} of memory are available; what each choice costs in quality: docs/convert.md"


def _by_layer(kept: list[tuple[str, str]]) -> Iterator[str]:
    """Yield one line for tensors that differ in nothing but the number of their layer."""
    kinds = Counter((re.sub(r"\.\d+\.", ".*.", name), reason) for name, reason in kept)
    for (name, reason), n_layers in kinds.items():
        where = f" ({counted(n_layers, 'layer')})" if "*" in name else ""
        yield f"{name}{where}: {reason}"


def _list(title: str, rows: list[str]) -> Iterator[str]:
    for i, row in enumerate(rows[:N_SHOWN]):
        yield (title if i == 0 else " " * len(title)) + row
    if len(rows) > N_SHOWN:
        yield " " * len(title) + f"and {len(rows) - N_SHOWN} more (--json lists all)"

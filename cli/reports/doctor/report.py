"""Runs the checks of ``doctor``, and writes what they find: each at once, so that a crash leaves those before it."""

import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from mistral_mlx.cli.options.sources import Option
from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.streams import write_raw
from mistral_mlx.cli.terminal.table import print_json
from mistral_mlx.errors import counted
from mistral_mlx.version import __version__

from . import files, installation, machine, models, surroundings
from .findings import Findings, State
from .installation import why

MIN_WIDTH, MAX_WIDTH = 50, 120  # of the lines on a terminal; elsewhere a finding is a line
STATE_WIDTH, ABOUT_WIDTH = 7, 11

Check = Callable[[Findings], None]


def run(known: Mapping[str, list[Option]], *, as_json: bool) -> int:
    """Make all checks, write their findings to stdout, and return the number of faults."""
    results: list[Findings] = []
    for found in examined(checks(known)):
        results.append(found)
        if not as_json:
            write_raw(_text(found))
    n_faults = sum(found.n_faults for found in results)
    if as_json:
        records = {found.about: found.record() for found in results}
        print_json({"version": __version__, "faults": n_faults, "checks": records})
    else:
        write_raw(f"\n{counted(n_faults, 'fault') if n_faults else 'no fault'} found\n")
    return n_faults


def checks(known: Mapping[str, list[Option]]) -> dict[str, Check]:
    """Return the checks by the name that they have in the report, in its order."""
    return {
        "program": installation.program,
        "python": installation.python,
        "packages": installation.packages,
        "mlx": machine.mlx,
        "kernels": machine.kernels,
        "processor": machine.processor,
        "memory": machine.memory,
        "home": files.own_folder,
        "disk": files.disk,
        "config": partial(files.config, known=known),
        "models": models.registered,
        "caches": models.caches,
        "network": surroundings.network,
        "variables": partial(surroundings.variables, known=known),
        "terminal": surroundings.terminal,
    }


def examined(of: Mapping[str, Check]) -> Iterator[Findings]:
    """Yield what each check finds. A check that fails is a fault, and does not end the others."""
    for about, check in of.items():
        found = Findings(about)
        try:
            check(found)
        except Exception as error:  # a report on what is broken must not break
            found.fault(f"cannot be checked ({type(error).__name__}: {why(error)})", "please report it with this page")
        yield found


def _text(found: Findings) -> str:
    """Return the lines of a check, wrapped: state, name of the check, text."""
    is_terminal = sys.stdout.isatty()
    width = min(max(shutil.get_terminal_size().columns, MIN_WIDTH), MAX_WIDTH) if is_terminal else sys.maxsize
    indent = " " * (STATE_WIDTH + ABOUT_WIDTH)
    wrapped = partial(textwrap.fill, width=width, break_long_words=False, break_on_hyphens=False)
    lines = []
    for line in found.lines:
        before = f"{line.state:<{STATE_WIDTH}}{found.about:<{ABOUT_WIDTH}}"
        lines.append(wrapped(inert(line.text), initial_indent=before, subsequent_indent=indent))
        if line.state is State.FAULT and line.advice:
            lines.append(wrapped(f"-> {inert(line.advice)}", initial_indent=indent, subsequent_indent=f"{indent}   "))
    return "".join(f"{line}\n" for line in lines)

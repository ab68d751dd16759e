"""What stands at the start of a row: the bars of quotes, the marks of items, and the spaces below them."""

from collections.abc import Sequence

from mistral_mlx.cli.terminal.row import NOTHING, Start
from mistral_mlx.cli.terminal.style import DIM, sgr

from .blocks import Container


def row_start(containers: Sequence[Container], n_old: int, n_cells: int) -> Start:
    """Return the start of a row in `containers`, of which all but `n_old` begin with it.

    It takes at most half of the row's `n_cells`: the outer containers are left out.
    """
    parts = [_part(container, is_new=n >= n_old) for n, container in enumerate(containers)]
    while 2 * sum(part.n_cells for part in parts) > n_cells:
        del parts[0]
    return sum(parts, NOTHING)


def _part(container: Container, *, is_new: bool) -> Start:
    if container.is_quote:
        return Start(sgr(f"{container.mark} ", DIM), 2)
    text = " " * container.indent + container.mark + " "
    return Start(text if is_new else " " * len(text), len(text))

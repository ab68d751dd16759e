"""The report of ``cache`` on the kept prompts, as a table or as JSON; their text is not shown."""

import datetime
from collections.abc import Sequence

from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import gigabytes, print_json, table
from mistral_mlx.errors import counted
from mistral_mlx.session.kept import KeptInfo

TITLES = ("TOKENS", "SIZE", "LAST USED", "MODEL")


def show(found: Sequence[KeptInfo], *, as_json: bool) -> None:
    """Write what is kept to stdout, the last used first; say so if that is nothing."""
    if as_json:
        print_json([_record(info) for info in found])
    elif found:
        write_text(table([TITLES, *map(_row, found)]))
    else:
        Notes().always("no prompt is kept")


def removed(n: int, nbytes: int) -> str:
    """Return the remark that `n` kept prompts of `nbytes` together were removed."""
    return f"{counted(n, 'kept prompt')} removed, {gigabytes(nbytes)}"


def _record(info: KeptInfo) -> dict[str, object]:
    used_at = datetime.datetime.fromtimestamp(info.used_at, datetime.UTC)
    return {
        "model": info.model,
        "tokens": info.tokens,
        "bytes": info.nbytes,
        "used_at": used_at.isoformat(timespec="seconds"),
        "path": str(info.path),
    }


def _row(info: KeptInfo) -> tuple[str, str, str, str]:
    used_at = datetime.datetime.fromtimestamp(info.used_at).strftime("%Y-%m-%d %H:%M")
    return f"{info.tokens:,}", gigabytes(info.nbytes), used_at, info.model

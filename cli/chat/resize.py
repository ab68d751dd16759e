"""Redraws the prompt where the terminal has wrapped its rows anew, because it became narrower."""

import math
import os

from prompt_toolkit.application import Application


def erase_all_on_resize(app: Application[str]) -> None:
    """Make `app` erase every row that its prompt takes after a resize; it counts those of the old width.

    Terminals that cut rows instead of wrapping them (xterm, the Linux console) are left alone.
    """
    if os.environ.get("XTERM_VERSION") or os.environ.get("TERM") == "linux":
        return
    redraw = app._on_resize

    def erase_and_redraw() -> None:
        n_more = rows_added(app)
        if n_more:
            app.output.cursor_up(n_more)
        redraw()

    app._on_resize = erase_and_redraw  # type: ignore[method-assign]  # there is no hook


def rows_added(app: Application[str]) -> int:
    """Return how many rows of the screen above the cursor, and of the cursor's, the new width has added."""
    screen, cursor, columns = app.renderer.last_rendered_screen, app.renderer._cursor_pos, app.output.get_size().columns
    if screen is None or columns < 1:
        return 0
    rows = (screen.data_buffer[y] for y in range(cursor.y))
    widths = [max((x for x, cell in row.items() if cell.char != " "), default=-1) + 1 for row in rows]
    return sum(math.ceil(width / columns) - 1 for width in widths if width) + cursor.x // columns

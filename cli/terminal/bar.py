"""The progress bar: one line of a terminal that shows what is done, how much of it, and the time left."""

import threading
from typing import TYPE_CHECKING

from .sanitize import inert

if TYPE_CHECKING:
    from rich.progress import Progress as Display

DELAY_S = 1.0
BAR_WIDTH, RATE_WIDTH, AMOUNT_WIDTH, NAME_WIDTH = 16, 11, 26, 8
OTHER_WIDTH = 50  # cells of a line that the name of what is done leaves to the amounts, the bar and the time
MEGABYTE, GIGABYTE = 1_000_000, 1_000_000_000


class Bar:
    """Draws progress; an instance is what the engine takes as `progress`. Its context ends with the line wiped.

    The line appears once the work has taken `delay_s`, and is wiped when it is done. A timer draws the first line,
    each call the next; with a `delay_s` of 0 there is no timer, so that no thread disturbs a measurement.
    """

    def __init__(
        self, unit: str = "", *, has_rate: bool = False, silent: bool = False, delay_s: float = DELAY_S
    ) -> None:
        self.silent = silent
        self._unit, self._has_rate, self._delay_s = unit, has_rate, delay_s
        self._state: tuple[str, int, int] | None = None  # of the work that goes on
        self._is_due = False
        self._timer: threading.Timer | None = None
        self._display: Display | None = None
        self._lock = threading.RLock()  # the timer's thread draws, too, and Ctrl-C may end the work meanwhile

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` is done."""
        if self.silent:
            return
        with self._lock:
            if done >= total:
                self._end()
                return
            if self._state is None:
                self._begin()
            self._state = what, done, total
            if self._is_due:
                self._draw(*self._state)

    def hide(self) -> None:
        """Wipe the line until the next call, for other output to the terminal."""
        with self._lock:
            if self._display is not None:
                self._display.stop()

    def _begin(self) -> None:
        self._is_due = not self._delay_s
        if self._delay_s:
            self._timer = threading.Timer(self._delay_s, self._appear)
            self._timer.daemon = True
            self._timer.start()

    def _appear(self) -> None:
        with self._lock:
            if self._state is not None:  # or the work ended while this waited for the lock
                self._is_due = True
                self._draw(*self._state)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        with self._lock:
            self._state = None
            self.hide()
            self._display = None

    def _draw(self, what: str, done: int, total: int) -> None:
        if self._display is None:
            self._display = _new_display(has_rate=self._has_rate)
        others = OTHER_WIDTH + RATE_WIDTH * self._has_rate
        if self._display.console.width < others + NAME_WIDTH:  # only the text has room
            self._display.columns = self._display.columns[:1]
            others = AMOUNT_WIDTH
        name = _cut(inert(what), self._display.console.width - others)
        text = f"{name}: {amount(done, total, self._unit)}"
        self._display.update(self._display.task_ids[0], description=text, completed=done, total=total)
        self._display.start()  # has no effect while it is shown
        self._display.refresh()


def _new_display(*, has_rate: bool) -> "Display":
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    rate = [TransferSpeedColumn()] if has_rate else []
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR_WIDTH),
        *rate,
        TimeRemainingColumn(),
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,  # or rich writes what is meant for stdout to stderr
        redirect_stderr=False,
    )
    display.add_task("", total=None)
    return display


def amount(done: int, total: int, unit: str) -> str:
    """Return how much of a work is done."""
    if unit != "bytes":
        return f"{done:,} of {total:,} {unit}".rstrip()
    if total >= 10 * GIGABYTE:
        return f"{done / GIGABYTE:.2f} of {total / GIGABYTE:.2f} GB"
    is_bytes = total >= MEGABYTE  # a conversion also counts blocks and windows, and its text says so
    return f"{done / MEGABYTE:.1f} of {total / MEGABYTE:.1f} MB" if is_bytes else f"{done:,} of {total:,}"


def _cut(text: str, n: int) -> str:
    n = max(n, NAME_WIDTH)
    return text if len(text) <= n else text[: n - 1] + "…"

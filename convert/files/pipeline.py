"""Reading ahead of the work and writing behind it, each on a thread of its own; knows nothing of files.

Reads, writes and packing all let go of the interpreter, so that the three run side by side. What a thread raises comes
out in the caller.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import ParamSpec, TypeVar

AHEAD = 2  # items made before they are asked for
BEHIND = 6  # calls waiting: the three parts of two packed blocks

T = TypeVar("T")
P = ParamSpec("P")


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """Yield `items` in order while a thread makes the next AHEAD of them."""
    with ThreadPoolExecutor(1) as thread:
        coming = deque(thread.submit(next, items, None) for _ in range(AHEAD))
        while (item := coming.popleft().result()) is not None:
            coming.append(thread.submit(next, items, None))
            yield item


class Behind:
    """Makes calls in order on a thread, at most BEHIND of them waiting.

    What a call raises comes out of a later `submit` or of `wait`, and nothing that was submitted after it counts.
    """

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._waiting: deque[Future[object]] = deque()

    def submit(self, call: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
        """Have `call` made, after waiting for earlier ones if there are too many."""
        self._waiting.append(self._thread.submit(call, *args, **kwargs))
        while len(self._waiting) > BEHIND:
            self._waiting.popleft().result()

    def wait(self) -> None:
        """Return when every call is done."""
        while self._waiting:
            self._waiting.popleft().result()

    def close(self) -> None:
        """Give up what is waiting, and end the thread."""
        self._thread.shutdown(cancel_futures=True)

"""Names for the caches that the followers hold, and what became of them: copies, and caches that nobody uses any more.

A cache of rank 0 has a twin in every other process, which sees the same tokens. Each step says how many of them count.
"""

from collections.abc import Sequence
from itertools import count
from typing import cast

from mistral_mlx.model.cache import RollingBufferCache, make_cache

from .group import Message
from .share import Share


class Named:
    """The twin of a cache: rank 0 has only its name, the followers have the cache."""

    def __init__(self, twins: "Twins") -> None:
        self._twins, self.name = twins, next(twins.names)

    def copy(self) -> "Named":
        """Return one for the same tokens that goes on by itself."""
        other = Named(self._twins)
        self._twins.copied.append((other.name, self.name))
        return other

    def __del__(self) -> None:
        self._twins.dropped.append(self.name)


class Twins:
    """All twins, as rank 0 counts them."""

    def __init__(self) -> None:
        self.names = count()
        self.copied: list[tuple[int, int]] = []  # new and old, since the last news
        self.dropped: list[int] = []

    def name_of(self, cache: Sequence[RollingBufferCache]) -> int:
        """Return the name of the twin of a cache, which gets one when it is first used."""
        twin = cache[0].twin
        if twin is None:
            assert cache[0].offset == 0, cache[0].offset  # what came from elsewhere has no twin
            twin = cache[0].twin = Named(self)
        assert isinstance(twin, Named)
        return twin.name

    def news(self) -> dict[str, object]:
        """Return what the followers have to copy and to drop before the next step."""
        copied, dropped = self.copied, self.dropped
        self.copied, self.dropped = [], []
        return {name: news for name, news in (("copied", copied), ("dropped", dropped)) if news}


class Followed:
    """The twins themselves: the caches of a follower by name."""

    def __init__(self) -> None:
        self.caches: dict[int, list[RollingBufferCache]] = {}

    def take(self, news: Message) -> None:
        """Do what rank 0 did with its own caches."""
        for new, old in cast(list[tuple[int, int]], news.get("copied", [])):
            self.caches[new] = [layer.copy() for layer in self.caches[old]]
        for name in cast(list[int], news.get("dropped", [])):
            self.caches.pop(name, None)

    def cache(self, name: int, offset: int, share: Share) -> list[RollingBufferCache]:
        """Return the cache of that name, a new one if there is none, with the first `offset` tokens in it."""
        if name not in self.caches:
            assert offset == 0, (name, offset)
            self.caches[name] = make_cache(share.args)
        for layer in self.caches[name]:
            layer.offset = offset
        return self.caches[name]

"""The cache of a conversation and the ids in it; knows nothing of messages or text.

Every prompt is compared with the ids in the cache, and what both begin with is kept, here or in a snapshot.
"""

from collections.abc import Sequence

from mistral_mlx.generation.snapshots import Snapshots, n_reusable
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache import RollingBufferCache, make_cache


class SessionCache:
    """The cache of each layer, the ids they hold, and earlier states of both."""

    def __init__(self, args: ModelArgs, snapshots: Snapshots) -> None:
        self.args, self.snapshots = args, snapshots
        self.layers: list[RollingBufferCache] = []
        self.ids: list[int] = []
        self.forget()

    @property
    def wrapped(self) -> bool:
        """Whether a layer has overwritten keys."""
        return any(layer.wrapped for layer in self.layers)

    def rewind(self, ids: Sequence[int]) -> int:
        """Hold a proper prefix of `ids`, as long as it can be, and return its length."""
        wanted = ids[:-1]  # one token at least must be evaluated, for its logits
        best = self.snapshots.best(wanted)
        if best is not None and best.n_reusable(wanted) > n_reusable(self.ids, self.layers, wanted):
            self.layers, self.ids = best.copied(), list(best.ids)
        n = n_reusable(self.ids, self.layers, wanted)
        if n == 0:
            self.forget()
        elif n < len(self.ids):
            self._trim(n)
        return n

    def keep_snapshot(self, ids: Sequence[int], n_next: int) -> None:
        """Keep the present state if evaluating `ids` and more, up to `n_next` in all, may overwrite a part of it."""
        self.snapshots.keep_prefixes_of(ids)
        if self.ids and any(layer.window is not None and n_next > layer.window for layer in self.layers):
            self.snapshots.add(self.ids, self.layers)

    def settle(self, fed: Sequence[int]) -> None:
        """Note what the layers hold of the ids in `fed`, and undo the step that an exception ended half way."""
        n_whole = min(layer.offset for layer in self.layers)
        if not all(layer.offset == layer.reserved == n_whole for layer in self.layers):
            if self.wrapped:
                self.forget()
                return
            for layer in self.layers:
                layer.trim(layer.offset - n_whole)
        self.ids = list(fed[:n_whole])

    def take_up(self, ids: Sequence[int], layers: list[RollingBufferCache]) -> None:
        """Go on from `layers`, which hold `ids`."""
        self.ids, self.layers = list(ids), layers

    def forget(self) -> None:
        """Begin with an empty cache. What is right in the snapshots stays right."""
        self.layers, self.ids = make_cache(self.args), []

    def clear(self) -> None:
        """Forget the snapshots too."""
        self.snapshots.clear()
        self.forget()

    def _trim(self, n: int) -> None:
        for layer in self.layers:
            layer.trim(len(self.ids) - n)
        del self.ids[n:]

"""The beginning of a prompt that is likely to come again: taken from the disk, and kept there after the answer."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from mistral_mlx.errors import MistralMLXError
from mistral_mlx.generation.snapshots import MAX_SNAPSHOT_BYTES, MIN_KEPT, n_common
from mistral_mlx.generation.timeline import Timeline

if TYPE_CHECKING:
    from mistral_mlx.session.kept import KeptPrompts


class Beginning:
    """What a new `timeline` takes from the disk of the prompt `ids`, and what of it is to be kept.

    `other` returns the ids of the same prompt as another call may ask it: what both begin with will come again.
    """

    def __init__(
        self,
        timeline: Timeline,
        ids: Sequence[int],
        kept: "Callable[[], KeptPrompts] | None",
        other: Callable[[], Sequence[int]],
    ) -> None:
        self.timeline, self.ids = timeline, ids
        self._kept = kept() if kept is not None and timeline.model.is_whole and len(ids) > MIN_KEPT else None
        self.n_taken = self._kept.take_up(timeline, ids) if self._kept else 0
        self.n_kept = self._n_kept(other)
        if self.n_kept:
            timeline.snapshots.max_nbytes = MAX_SNAPSHOT_BYTES

    def keep(self, name: str) -> None:
        """Write the beginning to the disk, unless it came from there. `name` is what the user calls the model."""
        if self._kept is not None and self.n_kept:
            self._kept.keep(self.timeline, self.n_kept, name)

    def _n_kept(self, other: Callable[[], Sequence[int]]) -> int:
        if self._kept is None or len(self.ids) - self.n_taken < MIN_KEPT:
            return 0
        try:
            n = n_common(self.ids, other())
        except MistralMLXError:  # a chat template that takes no such text
            return 0
        return n if n - self.n_taken >= MIN_KEPT else 0

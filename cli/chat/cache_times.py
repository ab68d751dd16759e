"""When the cache of a chat is written: at the end, and now and then if reading it again would take long."""

import time
from dataclasses import dataclass, field

WORTH_S = 1.0  # of reading
EVERY_S = 60.0
# So few tokens are read at a fraction of the speed of many: 13 with 52 to 101/s, 6,430 with 272/s.
FEW, FASTER = 64, 4.0


@dataclass
class CacheTimes:
    """Counts the time since the cache was written, and knows how fast the model reads."""

    tokens_per_s: float = 0.0  # of the fastest prompt
    since: float = field(default_factory=time.monotonic)

    def has_read(self, n_tokens: int, tokens_per_s: float) -> None:
        """Take notice of the speed at which `n_tokens` of a prompt were read."""
        self.tokens_per_s = max(self.tokens_per_s, tokens_per_s * (FASTER if n_tokens < FEW else 1.0))

    def is_due(self, n_missing: int, *, leaves: bool) -> bool:
        """Whether to write the cache, if that on the disk lacks `n_missing` tokens; `leaves` at the end of a chat."""
        pays = n_missing > 0 and n_missing >= WORTH_S * self.tokens_per_s
        return pays and (leaves or time.monotonic() - self.since >= EVERY_S)

    def is_written(self) -> None:
        """Begin to count anew."""
        self.since = time.monotonic()

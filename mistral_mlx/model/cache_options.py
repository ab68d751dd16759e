"""What the user of a model chooses of its cache: bits, a shorter window, sinks. Checked against the model once.

Imports no MLX: a chat knows the choice before it loads a model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mistral_mlx.errors import OptionError

if TYPE_CHECKING:
    from .args import ModelArgs

KV_BITS = (16, 8)  # 16: as many as the weights have, at least
MAX_SINKS = 64  # the positions that the native kernels take together


@dataclass(frozen=True)
class CacheOptions:
    """The default is the cache that config.json implies, with the bits of the weights."""

    window: int | None = None  # tokens that a query sees, in place of all or of more
    sinks: int = 0  # first tokens that stay in sight beside that window
    kv_bits: int = 16

    @property
    def sight(self) -> str:
        """The tokens that the next one sees, in words."""
        if self.window is None:
            return "as many tokens as the model was trained to see"
        return f"the last {self.window:,} tokens" + (f" and the first {self.sinks}" if self.sinks else "")

    def __str__(self) -> str:
        return f"{self.sight}, in {self.kv_bits} bits"

    @classmethod
    def of(cls, args: ModelArgs) -> CacheOptions:
        """Return what was chosen for a model with `args`."""
        windows = [w for w in args.sliding_window if w is not None]
        return cls(max(windows) if args.config_windows else None, args.sinks, args.kv_bits)

    def applied(self, args: ModelArgs) -> ModelArgs:
        """Return `args` with these choices. Raises OptionError if they make no sense, or none for this model."""
        if self.kv_bits not in KV_BITS:
            raise OptionError(f"kv_bits is {self.kv_bits}; it must be 16 or 8")
        if not 0 <= self.sinks <= MAX_SINKS:
            raise OptionError(f"sinks is {self.sinks}; it must be 0 to {MAX_SINKS}")
        args = replace(args, kv_bits=self.kv_bits)
        if self.window is not None:
            return self._with_window(args, self.window)
        if self.sinks:
            raise OptionError("sinks need a window: without one, the first tokens are never forgotten")
        return args

    def _with_window(self, args: ModelArgs, window: int) -> ModelArgs:
        """Give every layer that sees more than `window` tokens this window."""
        if window < 1:
            raise OptionError(f"window is {window}; a positive number of tokens is expected")
        before = args.trained_windows
        sight = max(args.max_position_embeddings if w is None else w for w in before)
        if window >= sight:
            raise OptionError(f"window is {window}, but the model sees no more than {sight:,} tokens; give fewer")
        windows = tuple(window if w is None or w > window else w for w in before)
        return replace(args, sliding_window=windows, sinks=self.sinks, config_windows=before)


def without_choice(args: ModelArgs) -> ModelArgs:
    """Return the `args` that config.json alone implies."""
    return replace(args, sliding_window=args.trained_windows, sinks=0, kv_bits=16, config_windows=None)


DEFAULT = CacheOptions()

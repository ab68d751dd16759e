"""The rolling buffer of keys and values (Jiang et al., Mistral 7B, 2023, section 2): positions, slots and masks.

One cache serves one layer. With a window of W tokens, the key of absolute position p
lies in slot ``p % W``; a query at position q sees the keys k with ``0 <= q - k < W``, W of them with itself.

Worked example, W = 4, after six tokens (positions 0 to 5) the ring holds positions 4 5 2 3 in slots 0 1 2 3. Three
new tokens (6 7 8) still need the keys of 3 4 5, so the step sees 3 4 5 6 7 8, and only then writes slots 2 3 0; the
ring then holds 8 5 6 7.
"""

import copy

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import OptionError

from .args import ModelArgs

GROWTH_STEP = 256  # slots added at a time: a short chat does not pay for the whole window


class RollingBufferCache:
    """Keys and values of one layer, ``[B, Hkv, slots, Dh]`` each; at most `window` slots, or growing if it is None."""

    def __init__(self, window: int | None = None) -> None:
        self.window = window
        self.offset = 0  # tokens seen so far, which is the absolute position of the next one
        self.reserved = 0  # positions that may have been written: ahead of `offset` only if a step was interrupted
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    @property
    def wrapped(self) -> bool:
        """Whether keys have been overwritten, so that `trim` is no longer possible."""
        return self.window is not None and self.reserved > self.window

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        return 0 if self.keys is None or self.values is None else self.keys.nbytes + self.values.nbytes

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Store ``[B, Hkv, S, Dh]`` new keys and values; return those the S queries may see, ``[B, Hkv, T, Dh]``.

        For S > 1 they come in order of position, the last of them the newest, as `make_mask` expects; for S = 1 in
        any order, all of them visible. ``T <= max(offset, W - 1) + S``.
        """
        n_new = keys.shape[2]
        start = self.offset
        self.reserved = start + n_new
        self._reserve(keys, values, start + n_new)
        if self.window is None or start + n_new <= self.window:
            seen = self._write(keys, values, start, start + n_new)
        elif n_new == 1:
            seen = self._write(keys, values, start % self.window, self.window)
        else:
            seen = self._append_to_ring(keys, values, start, self.window)
        self.offset = start + n_new
        return seen

    def reserve_one(self) -> tuple[mx.array, mx.array, int]:
        """Return the buffers of keys and values and the slot in them that the next token takes.

        At least one token must have been stored before, because that determines the shape of the buffers.
        """
        assert self.keys is not None and self.values is not None
        self.reserved = self.offset + 1
        self._reserve(self.keys, self.values, self.reserved)
        return self.keys, self.values, self.offset if self.window is None else self.offset % self.window

    def put(self, keys: mx.array, values: mx.array) -> None:
        """Store the buffers, which hold one more token in the slot of `reserve_one` now."""
        self.keys, self.values, self.offset = keys, values, self.reserved

    def make_mask(self, n_new: int) -> mx.array | None:
        """Return which keys each of the next `n_new` queries sees, bool ``[S, T]``; None if all do.

        Row i, the query at position ``offset + i``, has exactly ``min(offset + i + 1, W)`` true entries.
        """
        n_old = self.offset
        if self.window is not None and n_old + n_new > self.window:
            n_old = min(n_old, self.window - 1)
        return kernels.visible(n_new, n_old + n_new, self.window)

    def trim(self, n_tokens: int) -> None:
        """Forget the last `n_tokens` tokens.

        Raises OptionError if the ring has wrapped: the keys behind its window are gone.
        """
        if self.wrapped or not 0 <= n_tokens <= self.offset:
            raise OptionError(f"{n_tokens} of {self.offset} tokens cannot be taken back; make a new cache")
        self.offset -= n_tokens
        self.reserved = self.offset

    def copy(self) -> "RollingBufferCache":
        """Return a cache of its own; nothing is copied before one of the two is written to.

        Writing gives an array new memory where somebody else holds it, in MLX's operations and in the native kernels.
        """
        other = RollingBufferCache(self.window)
        other.offset, other.reserved = self.offset, self.reserved
        other.keys, other.values = copy.copy(self.keys), copy.copy(self.values)  # `a[i] = x` changes what `a` refers to
        return other

    @property
    def n_slots(self) -> int:
        """How many slots are in use."""
        return self.offset if self.window is None else min(self.offset, self.window)

    def restore(self, keys: mx.array, values: mx.array, offset: int) -> None:
        """Take up what another cache held in its slots ``[:n_slots]`` after `offset` tokens."""
        self.keys, self.values, self.offset, self.reserved = keys, values, offset, offset

    @property
    def n_allocated(self) -> int:
        """How many slots are allocated."""
        return 0 if self.keys is None else self.keys.shape[2]

    def shrink(self, offset: int, n_slots: int) -> None:
        """Go back to `offset` and to the first `n_slots` slots, which may hold later keys and values than they should.

        The cost of a step is the same then as it was at `offset`, which is all that a measurement needs.
        """
        assert self.keys is not None and self.values is not None
        keys, values = (mx.contiguous(part[:, :, :n_slots]) for part in (self.keys, self.values))
        mx.eval(keys, values)
        self.restore(keys, values, offset)

    def _reserve(self, keys: mx.array, values: mx.array, end: int) -> None:
        slots = -(-end // GROWTH_STEP) * GROWTH_STEP
        if self.window is not None:
            slots = min(slots, self.window)
        if self.keys is None or self.values is None:
            self.keys, self.values = _empty(keys, slots), _empty(values, slots)
        elif slots > self.keys.shape[2]:
            self.keys, self.values = _grown(self.keys, slots), _grown(self.values, slots)

    def _write(self, keys: mx.array, values: mx.array, start: int, seen: int) -> tuple[mx.array, mx.array]:
        """Write into the slots from `start` on, and return the first `seen` slots."""
        assert self.keys is not None and self.values is not None
        stop = start + keys.shape[2]
        self.keys[:, :, start:stop] = keys
        self.values[:, :, start:stop] = values
        return self.keys[:, :, :seen], self.values[:, :, :seen]

    def _append_to_ring(self, keys: mx.array, values: mx.array, start: int, window: int) -> tuple[mx.array, mx.array]:
        """Return the last W - 1 old positions and the new ones in order, then overwrite the oldest slots."""
        assert self.keys is not None and self.values is not None
        seen = _in_order(self.keys, start, window, keys), _in_order(self.values, start, window, values)
        _overwrite(self.keys, keys, start, window)
        _overwrite(self.values, values, start, window)
        return seen


def make_cache(args: ModelArgs) -> list[RollingBufferCache]:
    """Return an empty cache for each layer of a model."""
    return [RollingBufferCache(window) for window in args.sliding_window]


def cache_nbytes(args: ModelArgs, n_tokens: int, *, itemsize: int) -> int:
    """Return the bytes that the caches of a model take after `n_tokens` tokens, with elements of `itemsize` bytes."""
    slots = -(-n_tokens // GROWTH_STEP) * GROWTH_STEP
    total = sum(slots if window is None else min(slots, window) for window in args.sliding_window)
    return 2 * total * args.n_kv_heads * args.head_dim * itemsize


def _empty(like: mx.array, slots: int) -> mx.array:
    batch, heads, _, head_dim = like.shape
    return mx.zeros((batch, heads, slots, head_dim), like.dtype)


def _grown(buffer: mx.array, slots: int) -> mx.array:
    return mx.concatenate([buffer, _empty(buffer, slots - buffer.shape[2])], axis=2)


def _in_order(ring: mx.array, offset: int, window: int, new: mx.array) -> mx.array:
    """Return the last ``min(offset, W - 1)`` positions of `ring` in order, followed by `new`."""
    if offset < window:
        return mx.concatenate([ring[:, :, :offset], new], axis=2)
    oldest = (offset + 1) % window  # the slot of position offset - (W - 1)
    if oldest == 0:
        return mx.concatenate([ring[:, :, : window - 1], new], axis=2)
    return mx.concatenate([ring[:, :, oldest:], ring[:, :, : oldest - 1], new], axis=2)


def _overwrite(ring: mx.array, new: mx.array, offset: int, window: int) -> None:
    """Put the last W of the `new` tokens, the first of which has position `offset`, into their slots."""
    n_new = new.shape[2]
    n_kept = min(n_new, window)
    first = (offset + n_new - n_kept) % window
    n_before_end = min(n_kept, window - first)
    kept = new[:, :, n_new - n_kept :]
    ring[:, :, first : first + n_before_end] = kept[:, :, :n_before_end]
    ring[:, :, : n_kept - n_before_end] = kept[:, :, n_before_end:]

"""The rolling buffer of keys and values (Jiang et al., Mistral 7B, 2023, section 2): positions, slots and masks.

One cache serves one layer. A query at position q sees the keys k with ``0 <= q - k < W``, W of them with itself, where
W is the window. The ring has a few more slots than that, M of them, and the key of position p lies in slot ``p % M``.
So the step of a few tokens overwrites only keys that none of them sees, and a few tokens can be taken back at any time.

Worked example, if W were 4 and M 8: after ten tokens (positions 0 to 9) the ring holds positions 8 9 2 3 4 5 6 7 in
slots 0 to 7. The next token, 10, sees 7 8 9 10 and overwrites 2. If the last five tokens are taken back then, the next
position is 6 again; it sees 3 4 5, which are all there.

A query can see the first K positions beside its window, the sinks (Xiao et al., Efficient Streaming Language
Models with Attention Sinks, 2023; here they keep their positions). Their keys lie once more in K rows before the slots.
"""

import copy
from collections.abc import Iterator
from typing import Protocol

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import OptionError

from .args import ModelArgs
from .cache_options import KV_BITS, MAX_SINKS

GROWTH_STEP = 256  # slots added at a time: a short chat does not pay for the whole window
TILE = 64  # positions that the native kernels take together: slots are a multiple of it, so that none of these wraps


def slots_of(window: int) -> int:
    """Return M, the slots of a ring for `window`: 64 to 127 more."""
    return -(-(window + TILE) // TILE) * TILE


class Twin(Protocol):
    """What other processes hold for the same tokens, where they share a model."""

    def copy(self) -> "Twin":
        """Return one for the same tokens that goes on by itself."""


class RollingBufferCache:
    """Keys and values of one layer, ``[B, Hkv, sinks + slots, Dh]`` each; at most `size` slots, or growing for ever.

    With 8 `kv_bits` they are codes and a scale, int8 ``[B, Hkv, sinks + slots, Dh + 4]`` (`kernels/codes.py`).
    """

    def __init__(self, window: int | None = None, *, sinks: int = 0, kv_bits: int = 16) -> None:
        assert 0 <= sinks <= (0 if window is None else MAX_SINKS), (sinks, window)
        assert kv_bits in KV_BITS, kv_bits
        self.window, self.sinks, self.kv_bits = window, sinks, kv_bits
        self.size = None if window is None else slots_of(window)  # M, the slots of the whole ring
        self.offset = 0  # tokens seen so far, which is the absolute position of the next one
        self.reserved = 0  # positions that may have been written, now or before some were taken back
        self.keys: mx.array | None = None
        self.values: mx.array | None = None
        self.twin: Twin | None = None  # the same cache in other processes; only the first layer has it

    @property
    def wrapped(self) -> bool:
        """Whether the window has left the first token behind."""
        return self.window is not None and self.reserved > self.window

    def can_trim(self, n_tokens: int) -> bool:
        """Whether the last `n_tokens` tokens can be taken back: what the next query sees then must still be there."""
        return 0 <= n_tokens <= self.offset and self.keeps(self.offset - n_tokens, self.reserved)

    def keeps(self, offset: int, reserved: int) -> bool:
        """Whether a query at `offset` finds all that it sees, where `reserved` positions have been written."""
        if self.window is None or self.size is None or reserved <= self.size:
            return True
        return reserved - offset <= self.size - self.window + 1

    @property
    def nbytes(self) -> int:
        """Bytes allocated for keys and values."""
        return 0 if self.keys is None or self.values is None else self.keys.nbytes + self.values.nbytes

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        """Store ``[B, Hkv, S, Dh]`` new keys and values; return those the S queries may see, ``[B, Hkv, T, Dh]``.

        They come in order of position, the last of them the newest; for S = 1 as they lie in the ring if
        `returns_ring`. Some may lie before every window. The sinks come before them, and T counts these too.
        `make_mask` tells what each query sees. Of 8 bits it is the codes that are returned, of turned keys.
        """
        if self.kv_bits == 8:
            keys, values = kernels.encoded(kernels.turned(keys)), kernels.encoded(values)
        n_new = keys.shape[2]
        start = self.offset
        self._reserve(keys.shape, keys.dtype, start + n_new)
        self._write_sinks(keys, values, start)
        if self.size is None or start + n_new <= self.size:
            seen = self._write(keys, values, start, start + n_new)
        elif n_new == 1:
            seen = self._write(keys, values, start % self.size, self.size)
        else:
            seen = self._append_to_ring(keys, values, start, self.size)
        self.offset = start + n_new
        return seen

    def returns_ring(self, n_new: int) -> bool:
        """Whether `update_and_fetch` of `n_new` tokens returns the whole ring, position p in slot ``p % size``."""
        return n_new == 1 and self.size is not None and self.offset + 1 > self.size

    def reserve(self, n_new: int, shape: tuple[int, int, int], dtype: mx.Dtype) -> tuple[mx.array, mx.array]:
        """Return buffers of keys and values with a slot for each of the next `n_new` tokens, or all of the ring.

        `shape` is that of a token: B, Hkv and Dh; `dtype` that of 16 bits.
        """
        batch, heads, head_dim = shape
        row = kernels.row_elements(head_dim, self.kv_bits)
        self._reserve((batch, heads, n_new, row), mx.int8 if self.kv_bits == 8 else dtype, self.offset + n_new)
        assert self.keys is not None and self.values is not None
        return self.keys, self.values

    def put(self, keys: mx.array, values: mx.array, n_new: int) -> None:
        """Store the buffers of `reserve`, which hold `n_new` more tokens now."""
        self.keys, self.values, self.offset = keys, values, self.offset + n_new

    def count(self, n_new: int) -> None:
        """Note `n_new` more tokens whose keys and values another process holds."""
        self.offset += n_new
        self.reserved = max(self.reserved, self.offset)

    @property
    def layout(self) -> kernels.Layout:
        """Where the native kernels find a position."""
        return kernels.Layout(self.window or 0, self.size or 0, self.sinks)

    def make_mask(self, n_new: int) -> mx.array | None:
        """Return which keys each of the next `n_new` queries sees, bool ``[S, T]``; None if all do.

        Row i, the query at position ``offset + i``, has exactly ``min(offset + i + 1, W)`` true entries, and one for
        each sink that its window has left behind.
        """
        n_keys, is_ring = self._n_keys(n_new), self.returns_ring(n_new)
        if self.sinks and self.window is not None:
            return kernels.visible_with_sinks(n_new, n_keys, self.window, self.offset, self.sinks, ring=is_ring)
        if is_ring and self.window is not None:
            return kernels.visible_slots(self.offset, n_keys, self.window)
        return kernels.visible(n_new, n_keys, self.window)

    def _n_keys(self, n_new: int) -> int:
        """Return how many keys `update_and_fetch` of `n_new` tokens returns beside the sinks."""
        end = self.offset + n_new
        if self.window is None or self.size is None or end <= self.size:
            return end
        return self.size if n_new == 1 else min(self.offset, self.window - 1) + n_new

    def trim(self, n_tokens: int) -> None:
        """Forget the last `n_tokens` tokens.

        Raises OptionError if keys that the next token sees have been overwritten.
        """
        if not self.can_trim(n_tokens):
            raise OptionError(f"{n_tokens} of {self.offset} tokens cannot be taken back; make a new cache")
        self.offset -= n_tokens

    def copy(self) -> "RollingBufferCache":
        """Return a cache of its own; nothing is copied before one of the two is written to.

        Writing gives an array new memory where somebody else holds it, in MLX's operations and in the native kernels.
        """
        other = RollingBufferCache(self.window, sinks=self.sinks, kv_bits=self.kv_bits)
        other.offset, other.reserved = self.offset, self.reserved
        other.twin = None if self.twin is None else self.twin.copy()
        other.keys, other.values = copy.copy(self.keys), copy.copy(self.values)  # `a[i] = x` changes what `a` refers to
        return other

    @property
    def n_rows(self) -> int:
        """How many rows of the buffers are in use: those of the sinks and the slots."""
        return self.sinks + (self.offset if self.size is None else min(self.offset, self.size))

    def restore(self, keys: mx.array, values: mx.array, offset: int, reserved: int) -> None:
        """Take up what another cache held in its rows ``[:n_rows]`` after `offset` tokens, and its `reserved`."""
        self.keys, self.values, self.offset, self.reserved = keys, values, offset, reserved

    @property
    def n_allocated(self) -> int:
        """How many rows are allocated."""
        return 0 if self.keys is None else self.keys.shape[2]

    def shrink(self, offset: int, n_rows: int) -> None:
        """Go back to `offset` and to the first `n_rows` rows, which may hold later keys and values than they should.

        The cost of a step is the same then as it was at `offset`, which is all that a measurement needs.
        """
        if self.keys is None or self.values is None:  # another process holds them
            self.offset = self.reserved = offset
            return
        keys, values = (mx.contiguous(part[:, :, :n_rows]) for part in (self.keys, self.values))
        mx.eval(keys, values)
        self.restore(keys, values, offset, offset)

    def _reserve(self, shape: tuple[int, ...], dtype: mx.Dtype, end: int) -> None:
        """Have slots for the positions up to `end`; `shape` and `dtype` are those of any keys."""
        self.reserved = max(self.reserved, end)
        slots = -(-end // GROWTH_STEP) * GROWTH_STEP
        if self.size is not None:
            slots = min(slots, self.size)
        rows = self.sinks + slots
        if self.keys is None or self.values is None:
            self.keys, self.values = _empty(shape, dtype, rows), _empty(shape, dtype, rows)
        elif rows > self.keys.shape[2]:
            self.keys, self.values = _grown(self.keys, rows), _grown(self.values, rows)

    def _write_sinks(self, keys: mx.array, values: mx.array, start: int) -> None:
        """Write those of the new tokens that are sinks into the first rows."""
        assert self.keys is not None and self.values is not None
        n = min(self.sinks - start, keys.shape[2])
        if n > 0:
            self.keys[:, :, start : start + n] = keys[:, :, :n]
            self.values[:, :, start : start + n] = values[:, :, :n]

    def _write(self, keys: mx.array, values: mx.array, start: int, seen: int) -> tuple[mx.array, mx.array]:
        """Write into the slots from `start` on, and return the sinks and the first `seen` slots."""
        assert self.keys is not None and self.values is not None
        first, end = self.sinks + start, self.sinks + seen
        stop = first + keys.shape[2]
        self.keys[:, :, first:stop] = keys
        self.values[:, :, first:stop] = values
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _append_to_ring(self, keys: mx.array, values: mx.array, start: int, size: int) -> tuple[mx.array, mx.array]:
        """Return the sinks, what the first query sees of the old positions, and the new ones; store the new ones."""
        assert self.keys is not None and self.values is not None and self.window is not None
        n_old, sinks = min(start, self.window - 1), self.sinks
        seen = _in_order(self.keys, sinks, start, n_old, keys), _in_order(self.values, sinks, start, n_old, values)
        _overwrite(self.keys, keys, sinks, start, size)
        _overwrite(self.values, values, sinks, start, size)
        return seen


def make_cache(args: ModelArgs) -> list[RollingBufferCache]:
    """Return an empty cache for each layer of a model."""
    return [RollingBufferCache(window, sinks=sinks, kv_bits=args.kv_bits) for window, sinks in rings_of(args)]


def cache_nbytes(args: ModelArgs, n_tokens: int, *, itemsize: int) -> int:
    """Return the bytes that the caches of a model take after `n_tokens` tokens, with elements of `itemsize` bytes."""
    slots = -(-n_tokens // GROWTH_STEP) * GROWTH_STEP
    rows = sum(sinks + (slots if window is None else min(slots, slots_of(window))) for window, sinks in rings_of(args))
    return 2 * rows * args.n_kv_heads * row_nbytes(args, itemsize=itemsize)


def row_nbytes(args: ModelArgs, *, itemsize: int) -> int:
    """Return the bytes of a key or a value of one head, where elements of 16 `kv_bits` have `itemsize` bytes."""
    return kernels.row_elements(args.head_dim, args.kv_bits) * (1 if args.kv_bits == 8 else itemsize)


def rings_of(args: ModelArgs) -> Iterator[tuple[int | None, int]]:
    """Yield window and sinks of each layer; a window that the model was trained with has no sinks."""
    for window, trained in zip(args.sliding_window, args.trained_windows, strict=True):
        yield window, 0 if window == trained else args.sinks


def _empty(shape: tuple[int, ...], dtype: mx.Dtype, rows: int) -> mx.array:
    batch, heads, _, head_dim = shape
    return mx.zeros((batch, heads, rows, head_dim), dtype)


def _grown(buffer: mx.array, rows: int) -> mx.array:
    return mx.concatenate([buffer, _empty(buffer.shape, buffer.dtype, rows - buffer.shape[2])], axis=2)


def _in_order(buffer: mx.array, sinks: int, offset: int, n_old: int, new: mx.array) -> mx.array:
    """Return the sinks, the last `n_old` positions before `offset` in order, and `new`."""
    ring = buffer[:, :, sinks:]
    size = ring.shape[2]
    first = (offset - n_old) % size
    n_before_end = min(n_old, size - first)
    old = [ring[:, :, first : first + n_before_end], ring[:, :, : n_old - n_before_end]]
    return mx.concatenate([part for part in (buffer[:, :, :sinks], *old, new) if part.shape[2] > 0], axis=2)


def _overwrite(buffer: mx.array, new: mx.array, sinks: int, offset: int, size: int) -> None:
    """Put the last of the `new` tokens, the first of which has position `offset`, into their slots."""
    n_new = new.shape[2]
    n_kept = min(n_new, size)
    first = (offset + n_new - n_kept) % size
    n_before_end = min(n_kept, size - first)
    kept = new[:, :, n_new - n_kept :]
    buffer[:, :, sinks + first : sinks + first + n_before_end] = kept[:, :, :n_before_end]
    buffer[:, :, sinks : sinks + n_kept - n_before_end] = kept[:, :, n_before_end:]

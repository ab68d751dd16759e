"""A timeline: a model, its cache, the token ids in the cache, and the logits after the last one. Knows no text.

A prompt is compared with the ids that the timeline holds, and the common prefix is kept. A ring that has wrapped goes
back a few tokens only, because older keys were overwritten; a snapshot from before that may replace it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from itertools import pairwise

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import OptionError
from mistral_mlx.model.cache import RollingBufferCache, make_cache
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.progress import Progress, Report

from .ahead import ReadAhead
from .limits import CPU_PREFILL_STEP_SIZE, GPU_PREFILL_STEP_SIZE, check_prompt
from .snapshots import Snapshots, n_reusable

READING = "reading the prompt"  # as progress names it


class Timeline:
    """A model and the tokens it has seen.

    The layers of a cache from elsewhere may hold tokens that `ids` does not name; such a timeline only grows.

    An exception while tokens are evaluated leaves it usable: after an interrupt it holds the ids that every layer has,
    after an error it is empty, because arrays may never have been computed.

    The layers can hold tokens that `ids` does not: some that were read ahead (`ahead.py`), or on a GPU a step that runs
    ahead (`lazy.py`). Whoever asks for the layers gets them without these.
    """

    def __init__(
        self,
        model: Mistral,
        layers: list[RollingBufferCache] | None = None,
        ids: Sequence[int] = (),
        *,
        max_snapshot_bytes: int = 0,
    ) -> None:
        self.model = model
        self.shares_layers = layers is not None  # with somebody who counts on what they hold
        self.ids: list[int]  # in the layers
        self.logits: mx.array | None  # float32 [V] after the last id, if they are known
        self.ahead: mx.array | None  # a token that the layers hold too, and whose step runs
        self.read_tokens: ReadAhead | None  # tokens that they hold too
        self.snapshots = Snapshots(max_snapshot_bytes)
        self.restore(ids, make_cache(model.args) if layers is None else layers)

    @property
    def layers(self) -> list[RollingBufferCache]:
        """The cache of each layer. What they hold ahead of the ids is taken back first."""
        self.take_back()
        return self._layers

    @property
    def position(self) -> int:
        """The position of the next token."""
        return self._n_unnamed + len(self.ids)

    @property
    def room(self) -> int | None:
        """How many more tokens the model can take; None if every layer has a window, which has no end."""
        limit = self.model.args.context_limit
        return None if limit is None else max(0, limit - self.position)

    @property
    def wrapped(self) -> bool:
        """Whether the window of a layer has left the first token behind."""
        return any(layer.wrapped for layer in self._layers)

    def extend(
        self,
        ids: Sequence[int],
        progress: Progress | None = None,
        *,
        step_size: int | None = None,
        snapshot_at: int = 0,
    ) -> None:
        """Evaluate the prompt `ids` and keep the logits after the last one, and a snapshot at position `snapshot_at`.

        Raises OptionError for invalid ids, ContextError if they do not fit.
        """
        for hidden in self.feed(ids, progress, step_size=step_size, cut=snapshot_at - self.position):
            last = hidden[:, -1:]  # [1, 1, D]: only the last position pays for the head
            if self.position == snapshot_at:
                self.snapshots.add(self.ids, self.layers)
        with self.emptied_by_errors():
            self.logits = self.model.logits(last)[0, -1]
            mx.eval(self.logits)

    def feed(
        self, ids: Sequence[int], progress: Progress | None = None, *, step_size: int | None = None, cut: int = 0
    ) -> Iterator[mx.array]:
        """Yield the hidden states ``[1, S, D]`` of the prompt `ids`, one slice of `step_size` ids after the other.

        One slice ends after `cut` ids, if `cut` is a place between two of them.

        `progress` is called with strictly increasing counts from 0 to ``len(ids)``: before and after each slice, and
        on a CPU after each transformer block. It may raise an exception to stop.

        Raises OptionError for invalid ids, ContextError if they do not fit.
        """
        if any(layer.offset != self.position or not layer.can_trim(0) for layer in self.layers):
            raise OptionError("the cache was left in the middle of a step; make a new one")
        check_prompt(ids, self.model.args, self.position)
        if step_size is None:
            step_size = CPU_PREFILL_STEP_SIZE if kernels.on_cpu() else GPU_PREFILL_STEP_SIZE
        if step_size < 1:
            raise OptionError(f"prefill_step_size is {step_size}; it must be at least 1")
        report = Report(progress, READING, len(ids))
        ends = sorted({*range(step_size, len(ids), step_size), *([cut] if 0 < cut < len(ids) else []), len(ids)})
        for start, end in pairwise([0, *ends]):
            report(start)
            part = ids[start:end]
            on_block = partial(report.share, start, len(part), self.model.args.n_layers)
            yield self._evaluate(part, partial(self._hidden_of, part, on_block))
        report(len(ids))

    def step(self, token: int) -> None:
        """Go on with one generated `token` and keep the logits after it, which may have been read ahead."""
        logits = self.read_logits(token)
        if logits is None:
            read_ahead([(self, [token])])
            logits = self.read_logits(token)
        self.logits = None
        self.ids.append(token)
        self.logits = logits

    def read_logits(self, token: int) -> mx.array | None:
        """Return the logits ``[V]`` after `token` as the next one, if it was read ahead."""
        return None if self.read_tokens is None else self.read_tokens.logits_after(token, self.position)

    def can_run_ahead(self) -> bool:
        """Whether the next token can be evaluated before it is noted, so that taking it back loses nothing.

        The step that overwrites the first key of a ring would lose the way back to older tokens.
        """
        return all(layer.size != self.position for layer in self._layers)

    def run_ahead(self, token: mx.array) -> mx.array:
        """Return the logits ``[V]`` after `token`, an id ``[]``; neither need be computed yet.

        `enter` makes the token a part of the timeline. `take_back` undoes the step; so does all else that reads layers.
        """
        self.take_back()
        self.ahead = token
        return self.model(token.reshape(1, 1), self._layers)[0, -1]

    def enter(self, token: int, logits: mx.array) -> None:
        """Note the `token` of the step that runs ahead, and the `logits` after it."""
        assert self.ahead is not None, self.position
        self.logits = None
        self.ids.append(token)  # from here on, `take_back` finds nothing to take
        self.logits, self.ahead = logits, None

    def take_back(self) -> None:
        """Forget what the layers hold ahead of the ids."""
        if self.ahead is not None or self.read_tokens is not None:
            for layer in self._layers:
                layer.trim(layer.offset - self.position)
            self.ahead = self.read_tokens = None

    def rewind(self, ids: Sequence[int]) -> int:
        """Keep the longest possible prefix of `ids`, forget the rest, and return the length of the prefix.

        It is all of `ids` if the logits after them are known. Otherwise one id at least is left to evaluate.

        Raises OptionError for invalid ids, ContextError if they do not fit; then nothing is forgotten.
        """
        check_prompt(ids, self.model.args)
        if self.logits is not None and self.ids == list(ids):
            return len(ids)
        try:
            return self._rewind(ids[:-1])
        except BaseException:  # some layers may be shorter than others
            self._forget()
            raise

    def keeps(self, n: int, n_next: int) -> bool:
        """Whether it can go back to `n` tokens once it has seen `n_next`, without a snapshot."""
        return all(layer.keeps(n, n_next) for layer in self._layers)

    def keep_snapshot(self, ids: Sequence[int], n_next: int) -> None:
        """Keep a snapshot of the present state if `ids` and more, `n_next` tokens in all, may overwrite a part of it.

        Snapshots of other texts than `ids` are dropped.
        """
        self.snapshots.keep_prefixes_of(ids)
        if self.ids and not self.keeps(self.position, n_next):
            self.snapshots.add(self.ids, self.layers)

    def fork(self) -> "Timeline":
        """Return a timeline that goes on from here by itself. Arrays are shared until one of the two is written to."""
        other = Timeline(self.model)
        other.restore(self.ids, [layer.copy() for layer in self.layers])
        other.logits = self.logits
        return other

    def restore(self, ids: Sequence[int], layers: list[RollingBufferCache]) -> None:
        """Go on from `layers`, which hold `ids`."""
        self.ids, self.logits, self.ahead, self.read_tokens = list(ids), None, None, None
        self._layers, self._n_unnamed = layers, layers[0].offset - len(ids)  # tokens that `ids` does not name

    def clear(self) -> None:
        """Forget everything, the snapshots too."""
        self.snapshots.clear()
        self._forget()

    @contextmanager
    def emptied_by_errors(self) -> Iterator[None]:
        """Empty the timeline if an error occurs within: offsets may count tokens that were never computed."""
        try:
            yield
        except Exception:
            self._forget()
            raise

    def _forget(self) -> None:
        """Begin with an empty cache. The snapshots stay valid."""
        self.restore([], make_cache(self.model.args))

    def _hidden_of(self, ids: Sequence[int], on_block: Callable[[int], None]) -> mx.array:
        hidden = self.model.hidden(mx.array([ids]), self.layers, on_block)
        held = [array for layer in self.layers for array in (layer.keys, layer.values)]
        if kernels.on_cpu():
            mx.eval([hidden, *held])
        else:  # of the last block, nobody may need more than its keys and values
            mx.eval(held)
            mx.clear_cache()
        return hidden

    def _evaluate(self, ids: Sequence[int], compute: Callable[[], mx.array]) -> mx.array:
        """Return what `compute` returns, which feeds `ids` to the model, and note the ids that the layers hold then."""
        n_ids, start, self.logits = len(self.ids), self.position, None
        try:
            result = compute()
            self.ids += ids
        except Exception:
            self._forget()
            raise
        except BaseException:
            self._settle(start, [*self.ids[:n_ids], *ids], n_ids)
            raise
        return result

    def _settle(self, start: int, ids: list[int], n_before: int) -> None:
        """After an interrupt, hold as many of the new tokens as every layer has, or nothing if a ring cannot go back.

        `ids` are all ids with the new ones, which follow the first `n_before`, at position `start`.
        """
        n_whole = min(layer.offset for layer in self.layers)
        if not all(layer.can_trim(layer.offset - n_whole) for layer in self.layers):
            self._forget()
            return
        for layer in self.layers:
            layer.trim(layer.offset - n_whole)
        self.ids = ids[: n_before + n_whole - start]

    def _rewind(self, ids: Sequence[int]) -> int:
        best = self.snapshots.best(ids)
        if best is not None and best.n_reusable(ids) > n_reusable(self.ids, self.layers, ids):
            self.restore(best.ids, best.copied())
        n = n_reusable(self.ids, self.layers, ids)
        if n == len(self.ids):
            return n
        if n == 0:
            self._forget()
            return 0
        for layer in self.layers:
            layer.trim(len(self.ids) - n)
        self.ids, self.logits = self.ids[:n], None
        return n


def read_ahead(parts: Sequence[tuple[Timeline, Sequence[int]]]) -> None:
    """Evaluate, after what each timeline holds, tokens that may come next there; all in one pass of their model.

    `Timeline.step` finds the logits after them. After an error every one of the timelines is empty, after an interrupt
    each is as it was.
    """
    texts = [(tokens, timeline.layers) for timeline, tokens in parts]
    with ExitStack() as stack:
        for timeline, tokens in parts:
            stack.enter_context(timeline.emptied_by_errors())
            timeline.read_tokens = ReadAhead(timeline.position, tokens)  # now: what an interrupt leaves is taken back
        logits = parts[0][0].model.together(texts)
        mx.eval(logits)
    for (timeline, _), rows in zip(parts, logits, strict=True):
        assert timeline.read_tokens is not None, timeline.position
        timeline.read_tokens.logits = rows

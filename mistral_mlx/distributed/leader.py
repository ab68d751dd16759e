"""The model of rank 0, which looks like any other: embedding, last norm and head are here, the blocks are shared.

Before each step the followers are told what it is: which texts go on, from which position, with how many tokens.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import accumulate

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import GroupError
from mistral_mlx.kernels.memory import copies_fit
from mistral_mlx.model.cache import RollingBufferCache, make_cache
from mistral_mlx.model.mistral import Mistral

from .group import Group
from .held_signals import Alarm, Held, held_signals
from .part import Part
from .share import Share
from .twins import Twins

STUCK = "another of the processes that share the model did not go on; the interrupt ends all of them"
END_S = 5.0  # for which the others are waited for at the end

Text = tuple[Sequence[int], list[RollingBufferCache]]


class Leader(Mistral):
    """The model of rank 0. Its caches have all layers; of those that others hold, they only count the tokens."""

    is_whole = False

    def __init__(
        self, group: Group, share: Share, own: Mistral, on_stuck: Callable[[str], None] = lambda why: None
    ) -> None:
        """Lead with `own`, the modules of the share.

        `on_stuck` is called with what to say if a signal came, and nothing else can end a step that does not go on.
        """
        super(Mistral, self).__init__()
        self.args = share.whole
        self.model = own.model
        if "lm_head" in own:
            self.lm_head = own.lm_head
        self.group, self._share, self._twins = group, share, Twins()
        self._part = Part(group, share, own.model.layers)
        self._ready_head: kernels.ReadyModel | None = None
        self._alarm = Alarm(lambda: None if group.cut(STUCK) else on_stuck(STUCK))

    def __call__(self, ids: mx.array, cache: list[RollingBufferCache] | None = None) -> mx.array:
        """Return float32 logits ``[1, S, V]`` of every position of ``[1, S]`` token ids; see `Mistral`."""
        x = self._shared_at_once(ids, [make_cache(self.args) if cache is None else cache], [ids.shape[1]])
        return self._to_logits(x)

    def together(self, texts: Sequence[Text]) -> list[mx.array]:
        """Return the float32 logits ``[S, V]`` of each text's new token ids; see `Mistral`."""
        counts = [len(ids) for ids, _ in texts]
        ids = mx.array([[token for ids, _ in texts for token in ids]])
        logits = self._to_logits(self._shared_at_once(ids, [cache for _, cache in texts], counts))[0]
        ends = list(accumulate(counts))
        return [logits[end - n : end] for n, end in zip(counts, ends, strict=True)]

    def hidden(
        self, ids: mx.array, cache: list[RollingBufferCache], on_block: Callable[[int], None] | None = None
    ) -> mx.array:
        """Return the last hidden states ``[1, S, D]`` of ``[1, S]`` token ids that continue `cache`; see `Mistral`.

        What `on_block` raises, or a signal, stops all processes after the same block.
        """
        if on_block is None or not kernels.on_cpu():
            return self._normalized(self._shared_at_once(ids, [cache], [ids.shape[1]]))
        return self._normalized(self._by_block(ids, cache, on_block))

    def end(self, status: int) -> None:
        """Tell the followers to end with this exit status; after an error in a step they have ended anyway.

        Who does not listen is not waited for.
        """
        if not self.group.is_over:
            self.group.is_over = True
            say = threading.Thread(target=self._say_end, args=(status,), daemon=True)
            say.start()
            say.join(END_S)

    def _say_end(self, status: int) -> None:
        with suppress(GroupError):
            self.group.message({"do": "end", "status": status})

    @contextmanager
    def _step(self) -> Iterator[Held]:
        """Hold signals within; an error in the middle ends the group, as the others are in the step still."""
        with held_signals(self._alarm) as held:
            try:
                yield held
            except BaseException:
                self.group.is_over = True
                raise

    def _to_logits(self, x: mx.array) -> mx.array:
        """Return the logits of ``[1, S, D]`` after all blocks; the native kernels make the head ready once."""
        if not kernels.uses_native():
            return self.logits(self._normalized(x))
        if self._ready_head is None:
            head = self._head().parts
            self._ready_head = kernels.ReadyModel([], self.model.norm.parts, head, copy=copies_fit([head]))
        return self._ready_head.run(x, [kernels.Text([], [], 0, x.shape[1])], layouts=[], head=True)

    def _normalized(self, x: mx.array) -> mx.array:
        return self.model.norm(x)

    def _shared_at_once(self, ids: mx.array, caches: list[list[RollingBufferCache]], counts: list[int]) -> mx.array:
        _check(ids, caches)
        x = self.model.embed_tokens(ids)
        with self._step():
            self._tell("at once", caches, counts)
            y = self._part.at_once(x, [self._own(cache) for cache in caches], counts)
            self._count(caches, counts, self.args.n_layers)
        assert y is not None, counts
        return y

    def _by_block(self, ids: mx.array, cache: list[RollingBufferCache], on_block: Callable[[int], None]) -> mx.array:
        _check(ids, [cache])
        x, n, raised, n_done = self.model.embed_tokens(ids), ids.shape[1], list[BaseException](), 0
        with self._step() as held:

            def told(n_blocks: int) -> bool:
                nonlocal n_done
                n_done = n_blocks
                try:
                    held.act()
                    on_block(n_blocks)
                except BaseException as error:
                    raised.append(error)
                return bool(raised)

            self._tell("by block", [cache], [n])
            y = self._part.by_block(x, self._own(cache), n, told)
            self._count([cache], [n], n_done if y is None else self.args.n_layers)
        if raised:
            raise raised[0]
        assert y is not None, n
        return y

    def _tell(self, what: str, caches: Sequence[list[RollingBufferCache]], counts: Sequence[int]) -> None:
        texts = [[self._twins.name_of(cache), cache[0].offset, n] for cache, n in zip(caches, counts, strict=True)]
        self.group.message({"do": what, "texts": texts, **self._twins.news()})

    def _own(self, cache: list[RollingBufferCache]) -> list[RollingBufferCache]:
        return cache[self._share.layers.start : self._share.layers.stop]

    def _count(self, caches: Sequence[list[RollingBufferCache]], counts: Sequence[int], n_done: int) -> None:
        """Note in the layers that others hold what the first `n_done` of all have got."""
        for cache, n in zip(caches, counts, strict=True):
            for i in range(self._share.layers.stop, n_done):
                cache[i].count(n)


def _check(ids: mx.array, caches: Sequence[list[RollingBufferCache]]) -> None:
    """What the followers are told is one position for each text, and no batch."""
    assert ids.shape[0] == 1, ids.shape
    assert all(layer.offset == cache[0].offset for cache in caches for layer in cache)

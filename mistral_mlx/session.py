"""A conversation and the cache that holds it: what is cached is reused where that is right, and never guessed.

Every turn is encoded anew from the messages, in which answers keep the ids they were generated with, and compared
with the ids in the cache. What both begin with is kept. A wrapped ring cannot be rewound, because the keys behind its
window are gone: if anything before its end differs, the whole conversation is prefilled again.
"""

from collections.abc import Generator, Mapping, Sequence

from .cache import UNSETTLED, RollingBufferCache, make_cache
from .generation import DEFAULT_MAX_TOKENS, PREFILL_STEP_SIZE, GenerationResponse, OnPrefill, stream_generate
from .instruct import encode_chat
from .model import Mistral
from .sampling import Sampler
from .tokenizer import Tokenizer

Message = Mapping[str, object]  # "role", "content", and "ids" of a generated answer


class Session:
    """Messages, the cache, and the ids in the cache. `messages` may be changed between turns: the cache follows."""

    def __init__(self, model: Mistral, tokenizer: Tokenizer, *, system: str | None = None, template: str | None = None):
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.messages: list[Message] = []
        self.system = system
        self.cache: list[RollingBufferCache] = []
        self.ids: list[int] = []
        self._forget()

    @property
    def n_tokens(self) -> int:
        """How many tokens the cache has seen."""
        return len(self.ids)

    @property
    def wrapped(self) -> bool:
        """Whether the conversation is longer than a layer's window."""
        return any(layer.wrapped for layer in self.cache)

    def clear(self) -> None:
        """Forget the conversation; the system prompt stays."""
        self.messages = []
        self._forget()

    def ask(
        self,
        text: str,
        *,
        sampler: Sampler | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        stop: Sequence[str] = (),
        prefill_step_size: int = PREFILL_STEP_SIZE,
        on_prefill: OnPrefill | None = None,
    ) -> Generator[GenerationResponse, None, None]:
        """Yield the answer to `text` piece by piece.

        What was yielded becomes part of `messages`, also when the iterator is closed early or an exception ends it;
        with nothing yielded, `messages` stays as it was.

        Raises ContextError if the conversation does not fit the model's context.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        answer: list[GenerationResponse] = []
        try:
            for response in self.feed(
                self._encode(asked),
                sampler=sampler,
                max_tokens=max_tokens,
                stop=stop,
                prefill_step_size=prefill_step_size,
                on_prefill=on_prefill,
            ):
                answer.append(response)
                yield response
        finally:
            if answer:
                self.messages = [*asked, self._message(answer)]

    def feed(
        self,
        ids: Sequence[int],
        *,
        sampler: Sampler | None = None,
        max_tokens: int = DEFAULT_MAX_TOKENS,
        stop: Sequence[str] = (),
        prefill_step_size: int = PREFILL_STEP_SIZE,
        on_prefill: OnPrefill | None = None,
    ) -> Generator[GenerationResponse, None, None]:
        """Yield what follows `ids`, the whole history, of which only what is not cached is evaluated."""
        n_cached = self._rewind(ids)
        fed = list(ids)
        try:
            for response in stream_generate(
                self.model,
                self.tokenizer,
                ids[n_cached:],
                cache=self.cache,
                sampler=sampler,
                max_tokens=max_tokens,
                stop=stop,
                prefill_step_size=prefill_step_size,
                on_prefill=on_prefill,
            ):
                fed.append(response.token)
                yield response
        finally:
            self._settle(fed)

    def _encode(self, messages: Sequence[Message]) -> list[int]:
        system = [{"role": "system", "content": self.system}] if self.system else []
        return encode_chat(self.tokenizer, [*system, *messages], template=self.template)

    def _message(self, answer: Sequence[GenerationResponse]) -> Message:
        stop_ids = self.model.args.eos_token_ids | self.tokenizer.eos_ids
        ids = [response.token for response in answer if response.token not in stop_ids]
        text = "".join(response.text for response in answer)
        message = {"role": "assistant", "content": text}
        # Cut at a stop string or inside a character, the ids say more than the user has seen.
        return {**message, "ids": ids} if self.tokenizer.decode(ids) == text else message

    def _rewind(self, ids: Sequence[int]) -> int:
        """Make the cache hold a proper prefix of `ids`, as long as it can, and return its length."""
        n_common = _n_common(self.ids, ids[:-1])  # one token at least must be evaluated, for its logits
        if n_common < len(self.ids):
            if self.wrapped:
                self._forget()
                return 0
            for layer in self.cache:
                layer.trim(len(self.ids) - n_common)
            del self.ids[n_common:]
        return n_common

    def _settle(self, fed: Sequence[int]) -> None:
        """Note what the cache holds of the ids in `fed`; forget it if an exception ended a step half way."""
        offset = self.cache[0].offset
        if offset == UNSETTLED or any(layer.offset != offset for layer in self.cache):
            self._forget()
        else:
            self.ids = list(fed[:offset])

    def _forget(self) -> None:
        self.cache, self.ids = make_cache(self.model.args), []


def _n_common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

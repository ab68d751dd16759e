"""A conversation and the cache that holds it: what is cached is reused where that is right, and never guessed.

Every turn is encoded anew from the messages, in which answers keep the ids they were generated with, and compared
with the ids in the cache. What both begin with is kept. A wrapped ring cannot be rewound, because the keys behind its
window are gone: if anything before its end differs, the whole conversation is prefilled again.
"""

from collections.abc import Generator, Mapping, Sequence

from .cache import RollingBufferCache, make_cache
from .errors import OptionError
from .generation import (
    DEFAULT_MAX_TOKENS,
    GenerationResponse,
    OnPrefill,
    check_prompt,
    stream_generate,
)
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
        self._turn: object = None  # the question being answered, which the cache belongs to
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
        prefill_step_size: int | None = None,
        on_prefill: OnPrefill | None = None,
    ) -> Generator[GenerationResponse, None, None]:
        """Yield the answer to `text` piece by piece.

        What was yielded becomes part of `messages`, also when the iterator is closed early or an exception ends it;
        with nothing yielded, `messages` stays as it was.

        Raises ContextError if the conversation does not fit the model's context, and OptionError on the step after
        another question was asked.
        """
        asked = [*self.messages, {"role": "user", "content": text}]
        ids = self._encode(asked)
        check_prompt(ids, self.model)  # before anything cached is given up for it
        if self._turn is not None:
            self._forget()  # an answer was left in the middle: what it has put into the cache was never noted
        self._turn = turn = object()
        n_cached, answer = self._rewind(ids), list[GenerationResponse]()
        try:
            for response in stream_generate(
                self.model,
                self.tokenizer,
                ids[n_cached:],
                history=ids[:n_cached],
                cache=self.cache,
                sampler=sampler,
                max_tokens=max_tokens,
                stop=stop,
                prefill_step_size=prefill_step_size,
                on_prefill=on_prefill,
            ):
                answer.append(response)
                yield response
                if self._turn is not turn:
                    raise OptionError("this answer was overtaken by another question; ask again")
        except Exception:
            if self._turn is turn:
                self._forget()  # offsets may say that a step was done whose arrays were never computed
            raise
        finally:
            if self._turn is turn:
                self._settle([*ids, *(response.token for response in answer)])
                self.messages = [*asked, self._message(answer)] if answer else self.messages
                self._turn = None

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
        """Note what the cache holds of the ids in `fed`, and undo the step that an exception ended half way."""
        n_whole = min(layer.offset for layer in self.cache)
        if all(layer.offset == layer.reserved == n_whole for layer in self.cache):
            self.ids = list(fed[:n_whole])
        elif self.wrapped:
            self._forget()
        else:
            for layer in self.cache:
                layer.trim(layer.offset - n_whole)
            self.ids = list(fed[:n_whole])

    def _forget(self) -> None:
        self.cache, self.ids = make_cache(self.model.args), []


def _n_common(a: Sequence[int], b: Sequence[int]) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))

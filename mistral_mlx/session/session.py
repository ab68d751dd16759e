"""A conversation: its messages, and the timeline that holds their ids.

Every turn is encoded anew from the messages, in which answers keep the ids they were generated with, and compared
with the ids that the timeline holds. The common prefix is kept; a snapshot from the beginning of a turn serves where
a ring has wrapped. So `undo`, `retry` and `edit` only change the messages.
"""

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

from mistral_mlx.errors import OptionError, TokenizerError, shown
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.generation.channels import Parts, begun_by_prompt, split_answer
from mistral_mlx.generation.limits import check_prompt
from mistral_mlx.generation.response import GenerationResponse
from mistral_mlx.generation.snapshots import MAX_SNAPSHOT_BYTES
from mistral_mlx.generation.stream import stream
from mistral_mlx.generation.timeline import Timeline
from mistral_mlx.model.cache import RollingBufferCache
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.prompt.encode import chat_format, effort_of, encode_chat
from mistral_mlx.prompt.official import SystemContent
from mistral_mlx.tokenizer.choose import Tokenizer
from mistral_mlx.tokenizer.versions import number

from .context_use import ContextUse, context_use, without_overflow
from .fingerprint import Fingerprints, fingerprints
from .turns import Message, is_answer, turn_start, user_message

ON_OVERFLOW = ("stop", "drop-turns")

DEFAULTS = AnswerOptions()

Answer = Generator[GenerationResponse, None, None]


class Session:
    """Messages and their timeline. `messages` may be changed between turns: the timeline follows.

    With `on_overflow` "drop-turns", whole turns are dropped, the oldest first, when the model's context has no room for
    the next answer; `dropped_turns` says how many the last answer cost. With "stop" that is a ContextError.
    """

    def __init__(
        self,
        model: Mistral,
        tokenizer: Tokenizer,
        *,
        system: SystemContent | None = None,
        template: str | None = None,
        reasoning_effort: str | None = None,
        on_overflow: str = "stop",
        max_snapshot_bytes: int = MAX_SNAPSHOT_BYTES,
    ) -> None:
        if on_overflow not in ON_OVERFLOW:
            raise OptionError(f"on_overflow is {shown(on_overflow)}; choose one of {', '.join(ON_OVERFLOW)}")
        self.model, self.tokenizer, self.template = model, tokenizer, template
        self.messages: list[Message] = []
        self.system = system
        self.schema: Mapping[str, object] | bool | None = None  # that the model is told of
        self.reasoning_effort: str | None = None
        self.set_effort(reasoning_effort)
        self.on_overflow = on_overflow
        self.dropped_turns = 0
        self.timeline = Timeline(model, max_snapshot_bytes=max_snapshot_bytes)
        self._turn: object = None  # the question being answered, which the timeline belongs to
        self._asked: list[Message] = []  # the messages up to and including that question
        self._counted: tuple[object, int] = (None, 0)

    @property
    def cache(self) -> list[RollingBufferCache]:
        """The cache of each layer."""
        return self.timeline.layers

    @property
    def ids(self) -> list[int]:
        """The ids in the cache."""
        return self.timeline.ids

    @property
    def n_tokens(self) -> int:
        """How many tokens the cache has seen."""
        return len(self.ids)

    @property
    def wrapped(self) -> bool:
        """Whether the conversation is longer than a layer's window."""
        return self.timeline.wrapped

    @property
    def is_answering(self) -> bool:
        """Whether an answer has begun and not ended."""
        return self._turn is not None

    @cached_property
    def fingerprints(self) -> Fingerprints:
        """What the model, the tokenizer and the chat template are told by."""
        return fingerprints(self.model, self.tokenizer, self.template)

    @property
    def transcript(self) -> list[Message]:
        """The messages, with the question that is being answered."""
        return list(self._asked if self.is_answering else self.messages)

    @property
    def context(self) -> ContextUse:
        """How much of the context, or of the smallest window, the conversation takes."""
        return context_use(self.model.args, self.timeline.position if self.is_answering else self._count())

    def clear(self) -> None:
        """Forget the conversation; the system prompt stays."""
        self._turn = None
        self.messages = []
        self.timeline.clear()

    def set_system(self, content: SystemContent | None) -> None:
        """Set the system prompt, a text or chunks, for all further answers; None or an empty text for none."""
        self._turn = None
        self.system = content or None

    def set_effort(self, effort: str | None) -> None:
        """Set the effort of reasoning for all further answers; None for the model's own.

        Raises OptionError if the model has no such setting, or not this one.
        """
        if effort is not None:
            effort_of(self.tokenizer, chat_format(self.tokenizer, self.template), effort)
        self.reasoning_effort = effort

    def undo(self, n: int = 1) -> list[str]:
        """Drop the last `n` turns and return what the user said in them, in order.

        Raises OptionError if there are not as many; then nothing is dropped.
        """
        start = turn_start(self.messages, n)
        self._turn = None
        dropped, self.messages = self.messages[start:], self.messages[:start]
        return [str(message["content"]) for message in dropped if message["role"] == "user"]

    def ask(self, text: str, options: AnswerOptions = DEFAULTS) -> Answer:
        """Yield the answer to `text` piece by piece.

        What was yielded becomes part of `messages`, also when the iterator is closed early or an exception ends it;
        with nothing yielded, `messages` stays as it was.

        Raises ContextError if the conversation does not fit the model's context, and OptionError on the step after
        another question was asked.
        """
        yield from self._answer([*self.messages, user_message(text)], options)

    def retry(self, options: AnswerOptions = DEFAULTS) -> Answer:
        """Answer the last user message anew, as `ask` does; the old answer goes when the new one begins.

        Raises OptionError if there is none.
        """
        yield from self._answer(self.messages[: turn_start(self.messages, 1) + 1], options)

    def edit(self, n: int, text: str, options: AnswerOptions = DEFAULTS) -> Answer:
        """Answer `text` in place of the `n`-th user message from the end, as `ask` does; what follows it goes.

        Raises OptionError if there are not as many.
        """
        yield from self._answer([*self.messages[: turn_start(self.messages, n)], user_message(text)], options)

    def continue_answer(self, options: AnswerOptions = DEFAULTS) -> Answer:
        """Go on with the last answer where it ended, as `ask` does; the old part and the new one are one message.

        Raises OptionError if the last message is no answer.
        """
        if not self.messages or not is_answer(self.messages[-1]):
            raise OptionError("there is no answer to go on with; ask something first")
        has_begun = any(self.messages[-1].get(key) for key in ("content", "ids", "reasoning"))
        yield from self._answer(self.messages if has_begun else self.messages[:-1], options)

    def aside(self, messages: Sequence[Message], options: AnswerOptions) -> Answer:
        """Yield what follows `messages`, piece by piece; neither they nor it become part of the conversation.

        They share what the timeline holds of it; the next answer reads the conversation again from where they differ.
        No schema is told. Raises ContextError if they do not fit the model's context.
        """
        ids = self.encode(messages, tells_schema=False)
        check_prompt(ids, self.model.args)
        self._turn = None
        yield from stream(self.timeline, self.tokenizer, ids, options)

    def _answer(self, messages: Sequence[Message], options: AnswerOptions) -> Answer:
        """Yield what follows `messages`, of which the last is a question, or an answer that goes on."""
        asked, ids = self._fit(messages, options.max_tokens)
        self._asked, self._turn = asked, (turn := object())
        continued = asked[-1] if is_answer(asked[-1]) else None
        answer = list[GenerationResponse]()
        try:
            begun = "" if continued is None else str(continued["content"])
            for response in stream(
                self.timeline, self.tokenizer, ids, replace(options, continues=continued is not None, begun=begun)
            ):
                answer.append(response)
                yield response
                if self._turn is not turn:
                    raise OptionError("this answer was overtaken by another question; ask again")
        finally:
            if self._turn is turn:
                if answer:
                    self.messages = [*(asked[:-1] if continued else asked), self._message(answer, continued, ids)]
                else:
                    self.dropped_turns = 0
                self._turn = None

    def _fit(self, messages: Sequence[Message], max_tokens: int) -> tuple[list[Message], list[int]]:
        """Return the messages that are kept, and their ids. Raises ContextError if they do not fit."""
        limit = self.model.args.context_limit if self.on_overflow == "drop-turns" else None
        kept, ids, n_dropped = without_overflow(messages, self.encode, limit, max_tokens)
        check_prompt(ids, self.model.args)  # before the answer that is being given, if any, is ended
        self.dropped_turns = n_dropped
        return kept, ids

    def encode(self, messages: Sequence[Message], *, tells_schema: bool = True) -> list[int]:
        """Return the ids of `messages` after the system prompt. Raises OptionError or TokenizerError."""
        system = [{"role": "system", "content": self.system}] if self.system else []
        version = chat_format(self.tokenizer, self.template)
        if version is None or number(version) < 13:  # these read thinking only as the ids that were generated
            messages = [{key: m[key] for key in m if key != "reasoning"} for m in messages]
        return encode_chat(
            self.tokenizer,
            [*system, *messages],
            template=self.template,
            reasoning_effort=self.reasoning_effort,
            schema=self.schema if tells_schema else None,
        )

    def _count(self) -> int:
        """Return the tokens of the conversation, which is encoded once after each change."""
        key = (self.system, self.reasoning_effort, self.schema, self.messages[:])
        if self._counted[0] != key:
            try:
                n = len(self.encode(self.messages)) if self.messages else 0
            except TokenizerError:  # a template that ends no text with an answer
                n = self.n_tokens
            self._counted = (key, n)
        return self._counted[1]

    def _message(
        self, answer: Sequence[GenerationResponse], continued: Message | None, prompt: Sequence[int]
    ) -> Message:
        stop_ids = self.model.args.eos_token_ids | self.tokenizer.eos_ids
        ids = [response.token for response in answer if response.token not in stop_ids]
        text = "".join(response.text for response in answer)
        reasoning = "".join(response.reasoning for response in answer)
        if continued is not None:
            ids = [*self._ids_of(continued), *ids]
            text = str(continued["content"]) + text
            reasoning = str(continued.get("reasoning", "")) + reasoning
        else:  # a history has no such beginning, which the template writes only for the answer that is asked for
            ids = [*begun_by_prompt(self.tokenizer, prompt), *ids]
        message: Message = {"role": "assistant", "content": text}
        if reasoning:
            message = {**message, "reasoning": reasoning}
        if answer[-1].finish_reason is None:
            message = {**message, "interrupted": True}
        # Cut at a stop string or inside a character, the ids say more than the user has seen.
        is_whole = ids and split_answer(self.tokenizer, ids) == Parts(text, reasoning)
        return {**message, "ids": ids} if is_whole else message

    def _ids_of(self, message: Message) -> list[int]:
        ids = message.get("ids")
        if isinstance(ids, Sequence) or message.get("reasoning"):
            return list(ids) if isinstance(ids, Sequence) else []  # the ids of reasoning are not known
        return self.tokenizer.encode(str(message["content"]))

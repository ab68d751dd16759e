"""Mistral's own chat formats v1 to v15, written as ids; they equal mistral-common's.

The system prompt goes where mistral-common puts it: into the first user message for v1, into the *last* one for v2 and
v3, into a block of its own from v7 on. So for v2 and v3 every new turn changes the ids of the turn before, if there is
a system prompt; a session then evaluates the prompt again from there, or all of it once its window has wrapped.
The same holds for tools: up to v11 they are written before the last user message, from v13 on before the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mistral_mlx.errors import OptionError, TokenizerError
from mistral_mlx.tokenizer.base import Tokenizer
from mistral_mlx.tokenizer.versions import (
    BEGIN_THINK,
    END_THINK,
    SCHEMA_SETTING,
    SETTINGS_TOKENS,
    SYSTEM_TOKENS,
    TOOL_CALLS,
    number,
)

from .content import JOINED, Content, Thinking, chunks_of
from .messages import ChatMessage, joined
from .tools import ToolCall, meaning_of, written


def encode_mistral(
    tokenizer: Tokenizer,
    turns: Sequence[ChatMessage],
    version: str,
    *,
    tools: Sequence[Mapping[str, object]] = (),
    effort: str | None = None,
    schema: object = None,
) -> list[int]:
    """Return the ids of merged and checked `turns`; `effort` and `schema` are written by v15."""
    writer = _Writer(tokenizer, number(version))
    turns = list(turns) if writer.number >= 7 else _with_system_in_user(turns, version)
    users = [index for index, turn in enumerate(turns) if turn.role == "user"]
    first, last = (users[0], users[-1]) if users else (-1, -1)
    ids = [_required(tokenizer.bos_id, "bos")]
    for index, turn in enumerate(turns):
        if version == "v2" and index < last and (turn.role == "tool" or turn.tool_calls):
            continue  # v2 forgets the calls of earlier turns
        if index == (first if writer.number >= 13 else last):
            ids += writer.tools(tools) + writer.settings(effort, schema)
        ids += writer.message(turn)
        if turn.role == "assistant" and index + 1 < len(turns):
            ids.append(_required(tokenizer.eos_id, "eos"))
    return ids


def _with_system_in_user(turns: Sequence[ChatMessage], version: str) -> list[ChatMessage]:
    system = joined([turn.text for turn in turns if turn.role == "system"])
    turns = [turn for turn in turns if turn.role != "system"]
    if turns[0].role != "user":
        turns.insert(0, ChatMessage("user", ""))
    users = [index for index, turn in enumerate(turns) if turn.role == "user"]
    place = users[0] if version == "v1" else users[-1]
    if system:
        turns[place] = replace(turns[place], content=system + JOINED + turns[place].text)
    return turns


@dataclass(frozen=True)
class _Writer:
    """Writes the parts of a conversation in the format with this number."""

    tokenizer: Tokenizer
    number: int

    def message(self, turn: ChatMessage) -> list[int]:
        """Return the ids of a message, without the eos of an answer."""
        if turn.role == "assistant":
            return list(turn.ids) or [*self._answer(turn.content), *self._calls(turn.tool_calls)]
        if turn.role == "tool":
            return self._result(turn)
        if turn.role == "system":
            return self._between(*SYSTEM_TOKENS, self._content(turn.content))
        if self.number == 1:
            return self.tokenizer.encode(f"[INST] {turn.text} [/INST]")
        return self._between("[INST]", "[/INST]", self.tokenizer.encode(turn.text))

    def tools(self, tools: Sequence[Mapping[str, object]]) -> list[int]:
        """Return the block that offers tools, if there are any."""
        if not tools:
            return []
        return self._between("[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", self.tokenizer.encode(written(tools)))

    def settings(self, effort: str | None, schema: object) -> list[int]:
        """Return the block of v15 with the schema of the answer and the effort of reasoning, if there are any."""
        settings = {SCHEMA_SETTING: schema, "reasoning_effort": effort}  # in alphabetical order
        settings = {key: value for key, value in settings.items() if value is not None}
        if not settings or self.number < 15:
            return []
        return self._between(*SETTINGS_TOKENS, self.tokenizer.encode(written(settings)))

    def _answer(self, content: Content) -> list[int]:
        if isinstance(content, str):
            return self.tokenizer.encode(content if self.number == 1 else content.rstrip(" "))
        return self._content(content)

    def _content(self, content: Content) -> list[int]:
        ids: list[int] = []
        for chunk in chunks_of(content):
            text = self.tokenizer.encode(chunk.text)
            if isinstance(chunk, Thinking):
                text = [self._control(BEGIN_THINK), *text, *([self._control(END_THINK)] if chunk.closed else [])]
            ids += text
        return ids

    def _calls(self, calls: Sequence[ToolCall]) -> list[int]:
        if not calls:
            return []
        if self.number < 11:
            listed = [self._listed_call(call) for call in calls]
            return [self._control(TOOL_CALLS), *self.tokenizer.encode(written(listed))]
        ids: list[int] = []
        for call in calls:
            ids += [self._control(TOOL_CALLS), *self.tokenizer.encode(call.name)]
            if self.number == 11:
                ids += [self._control("[CALL_ID]"), *self.tokenizer.encode(call.id or "")]
            ids += [self._control("[ARGS]"), *self.tokenizer.encode(written(call.arguments))]
        return ids

    def _listed_call(self, call: ToolCall) -> dict[str, object]:
        listed: dict[str, object] = {"name": call.name, "arguments": call.arguments}
        return listed if self.number == 2 else {**listed, "id": call.id}

    def _result(self, turn: ChatMessage) -> list[int]:
        encode, text, call_id = self.tokenizer.encode, turn.text, turn.call_id or ""
        if self.number == 2:
            ids = encode(written([{"name": turn.name, "content": meaning_of(text or "{}")}]))
        elif self.number == 3:
            ids = encode(written({"content": meaning_of(text or "{}"), "call_id": call_id}))
        elif self.number < 13:
            ids = [*encode(call_id), self._control("[TOOL_CONTENT]"), *encode(text)]
        else:
            ids = encode(text)
        return self._between("[TOOL_RESULTS]", "[/TOOL_RESULTS]", ids)

    def _between(self, begin: str, end: str, ids: Sequence[int]) -> list[int]:
        return [self._control(begin), *ids, self._control(end)]

    def _control(self, text: str) -> int:
        token_id = self.tokenizer.control.get(text)
        if token_id is None:
            raise OptionError(f"this model has no {text} token, which these messages need")
        return token_id


def _required(token_id: int | None, name: str) -> int:
    if token_id is None:
        raise TokenizerError(f"this tokenizer has no {name} token, which every chat format needs")
    return token_id

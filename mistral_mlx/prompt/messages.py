"""The messages of a conversation, checked one by one, and joined where a chat format wants it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from mistral_mlx.errors import OptionError, shown

from .content import JOINED, Content, Thinking, aggregated, checked_content, chunks_of, has_thinking, is_empty
from .tools import ToolCall, checked_calls, checked_name, written

SCHEMA_LINE = "Answer only with JSON that follows this JSON Schema: "
ROLES = ("system", "user", "assistant", "tool")
MAY_THINK = ("system", "assistant")


@dataclass(frozen=True)
class ChatMessage:
    """A checked message; `ids` only where they were generated."""

    role: str
    content: Content
    ids: tuple[int, ...] = ()
    tool_calls: tuple[ToolCall, ...] = ()
    call_id: str | None = None  # of the call that a tool message answers
    name: str | None = None  # of the tool that answers

    @property
    def text(self) -> str:
        """The content of a message that cannot think."""
        assert isinstance(self.content, str), self.role
        return self.content


def checked(messages: Sequence[Mapping[str, object]]) -> list[ChatMessage]:
    """Return the messages without empty answers. Raises OptionError for one that cannot be."""
    turns = [_checked_turn(message, number) for number, message in enumerate(messages, start=1)]
    turns = [turn for turn in turns if turn.role != "assistant" or says_something(turn)]
    if not turns:
        raise OptionError("there are no messages; give at least one user message")
    if turns[-1].role == "system":
        raise OptionError("the last message is a system message; put a user message behind it")
    return turns


def says_something(turn: ChatMessage) -> bool:
    """Return whether an answer has any text, thinking, ids or calls."""
    return bool(turn.ids or turn.tool_calls or not is_empty(turn.content))


def _checked_turn(message: Mapping[str, object], number: int) -> ChatMessage:
    place = f"message {number}"
    if not isinstance(message, Mapping):
        raise OptionError(f"{place} is {shown(message)}; give a mapping with role and content")
    role, content, ids = message.get("role"), message.get("content"), message.get("ids") or ()
    if role not in ROLES or not isinstance(role, str):
        raise OptionError(f"{place} has the role {shown(role)}; use one of {', '.join(ROLES)}")
    if role == "assistant" and content is None and (message.get("tool_calls") or message.get("reasoning")):
        content = ""
    turn = ChatMessage(role, _with_reasoning(message, checked_content(content, place), place))
    if has_thinking(turn.content) and role not in MAY_THINK:
        raise OptionError(f"{place} has thinking and the role {role}; only system and assistant messages have any")
    for key in ("ids", "tool_calls"):
        if message.get(key) and role != "assistant":
            raise OptionError(f"{place} has {key} and the role {role}; only assistant messages have {key}")
    if not isinstance(ids, Sequence) or not all(isinstance(i, int) and i >= 0 for i in ids):
        raise OptionError(f"the ids of {place} are {shown(ids)}; give a list of token ids")
    turn = replace(turn, ids=tuple(ids), tool_calls=checked_calls(message.get("tool_calls"), place))
    return _answer_of_tool(turn, message, place) if role == "tool" else turn


def _with_reasoning(message: Mapping[str, object], content: Content, place: str) -> Content:
    """Return `content` after what the message has under "reasoning", which is how an answer is written as JSON."""
    reasoning = message.get("reasoning")
    if not reasoning or message.get("ids"):  # the ids have it
        return content
    if not isinstance(reasoning, str) or message["role"] != "assistant":
        raise OptionError(f"the reasoning of {place} is {shown(reasoning)}; give an assistant message a text")
    if has_thinking(content):
        raise OptionError(f"{place} has reasoning and chunks of thinking; leave one out")
    return Thinking(reasoning), *chunks_of(content)


def _answer_of_tool(turn: ChatMessage, message: Mapping[str, object], place: str) -> ChatMessage:
    call_id, name = message.get("tool_call_id"), message.get("name")
    if not isinstance(call_id, str | None):
        raise OptionError(f"the tool_call_id of {place} is {shown(call_id)}; give the id of a call")
    return replace(turn, call_id=call_id, name=None if name is None else checked_name(name, place))


def merged(turns: Sequence[ChatMessage], between_chunks: str = JOINED) -> list[ChatMessage]:
    """Join neighbours of the same role, but for system and tool messages and generated ids."""
    found: list[list[ChatMessage]] = []
    for turn in turns:
        before = found[-1][-1] if found else None
        mergeable = turn.role in ("user", "assistant") and not turn.ids
        if before is not None and before.role == turn.role and mergeable and not before.ids:
            found[-1].append(turn)
        else:
            found.append([turn])
    return [_joined(group, between_chunks) for group in found]


def _joined(group: Sequence[ChatMessage], between_chunks: str) -> ChatMessage:
    content = aggregated([turn.content for turn in group], between_chunks)
    return replace(group[0], content=content, tool_calls=tuple(call for turn in group for call in turn.tool_calls))


def joined(texts: Sequence[str]) -> str:
    """Return texts of several messages as one."""
    return JOINED.join(text for text in texts if text)


def with_schema(messages: Sequence[Mapping[str, object]], schema: object) -> list[Mapping[str, object]]:
    """Return the messages with a line at the end of the system prompt that tells what JSON the answer is to be."""
    line, first = SCHEMA_LINE + written(schema), messages[0] if messages else {}
    if not isinstance(first, Mapping) or first.get("role") != "system":
        return [{"role": "system", "content": line}, *messages]
    content = first.get("content")
    if isinstance(content, list | tuple):
        return [{**first, "content": [*content, {"type": "text", "text": JOINED + line}]}, *messages[1:]]
    return [{**first, "content": f"{content}{JOINED}{line}"}, *messages[1:]]

"""What a version of Mistral's format allows beyond plain chats: tools, calls, their results, thinking.

The rules are mistral-common's (its validators): what it refuses is refused, by the message that is wrong. Plain chats
are not checked here.
"""

import re
from collections.abc import Iterator, Mapping, Sequence

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.tokenizer.versions import number

from .content import has_thinking, is_empty
from .messages import ChatMessage

CALL_ID = re.compile(r"[a-zA-Z0-9]{9}")  # v3 to v11
NONE = "null"  # an id that is none


def check_tools(turns: Sequence[ChatMessage], tools: Sequence[Mapping[str, object]], version: str | None) -> None:
    """Raise OptionError if a chat in the format `version` cannot have these tools, calls and results."""
    has_any = tools or any(turn.role == "tool" or turn.tool_calls for turn in turns)
    if has_any and version in (None, "v1"):
        what = "the model's own chat template" if version is None else "the chat format v1"
        raise OptionError(f"tools cannot be written in {what}; use a model of Mistral's with v2 or later")
    if version is None or not has_any:
        return
    _check_places(turns)
    for turn in turns:
        _check_ids(turn, version)
    if number(version) < 7:
        _check_text_beside_calls(turns)
    _check_pairs(turns, version)


def check_thinking(turns: Sequence[ChatMessage], version: str | None) -> None:
    """Raise OptionError for thinking that the format `version` cannot write."""
    for turn in turns:
        if not has_thinking(turn.content):
            continue
        if version is None or number(version) < 13:
            raise OptionError("a message has chunks of thinking, which only models with v13 or v15 can read")
        if version == "v15" and turn.role == "system":
            raise OptionError("a system message has chunks of thinking, which v15 does not allow; leave them out")


def in_call_order(turns: Sequence[ChatMessage], version: str) -> list[ChatMessage]:
    """Return the turns with the results of several calls in the order of the calls, from v11 on."""
    if number(version) < 11:
        return list(turns)
    ordered, calls = list[ChatMessage](), list[str | None]()
    for is_result, group in _groups(turns):
        if is_result:
            group.sort(key=lambda turn: calls.index(turn.call_id))
        else:
            calls = [call.id for call in group[-1].tool_calls]
        ordered += group
    return ordered


def _groups(turns: Sequence[ChatMessage]) -> Iterator[tuple[bool, list[ChatMessage]]]:
    """Yield runs of results, and every other message alone."""
    run: list[ChatMessage] = []
    for turn in turns:
        if turn.role == "tool":
            run.append(turn)
            continue
        if run:
            yield True, run
            run = []
        yield False, [turn]
    if run:
        yield True, run


def _check_places(turns: Sequence[ChatMessage]) -> None:
    before = ""
    for turn in turns:
        if turn.role == "tool" and before not in ("assistant", "tool"):
            raise OptionError("a tool message must follow an assistant message with tool_calls, or a tool message")
        if turn.role == "system" and before == "tool":
            raise OptionError("a system message follows a tool message; put it at the beginning")
        before = turn.role


def _check_ids(turn: ChatMessage, version: str) -> None:
    ids = [(call.id, "tool call") for call in turn.tool_calls]
    ids += [(turn.call_id, "tool message")] if turn.role == "tool" else []
    for call_id, what in ids if version != "v2" else ():
        if not call_id or call_id == NONE:
            raise OptionError(f"a {what} has no id; each call needs one, and its result the same as tool_call_id")
        if number(version) < 13 and not CALL_ID.fullmatch(call_id):
            raise OptionError(f"a {what} has the id {shown(call_id)}; {version} needs 9 letters and digits")


def _check_text_beside_calls(turns: Sequence[ChatMessage]) -> None:
    for before, turn in zip([None, *turns], turns, strict=False):
        group = [turn, before] if before and before.role == "assistant" == turn.role else [turn]
        if any(t.tool_calls for t in group) and any(not is_empty(t.content) for t in group):
            raise OptionError("an assistant message has text and tool_calls, which only v7 and later can write")


def _check_pairs(turns: Sequence[ChatMessage], version: str) -> None:
    """Check that calls have their results before the next answer; by number, and from v11 on by id."""
    by_id = number(version) >= 11
    expected, observed = list[str | None](), list[str | None]()
    for turn in turns[1:]:  # calls in the first message count for nothing, in mistral-common too
        if turn.role == "tool":
            if by_id and (turn.call_id in observed or turn.call_id not in expected):
                why = "is there twice" if turn.call_id in observed else "answers no call"
                raise OptionError(f"the tool message with the id {shown(turn.call_id)} {why}")
            observed.append(turn.call_id)
        elif turn.role == "assistant":
            if len(expected) != len(observed):
                raise OptionError(f"there are {len(observed)} results for {len(expected)} tool calls before an answer")
            expected, observed = [call.id for call in turn.tool_calls], []
            if by_id and len(set(expected)) != len(expected):
                raise OptionError("two tool calls of one message have the same id")
    if version == "v2":
        _check_single_result(turns)


def _check_single_result(turns: Sequence[ChatMessage]) -> None:
    last_user = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=-1)
    n_results = 0
    for turn in turns[last_user + 1 :]:
        n_results = n_results + 1 if turn.role == "tool" else 0
        if n_results > 1:
            raise OptionError("v2 cannot write several results after one answer; ask for one call at a time")

"""Reads the tool calls that a model has written as ids, the opposite of `mistral_formats`. Calls nothing."""

import hashlib
from collections.abc import Iterator, Sequence

from mistral_mlx.tokenizer.base import Tokenizer
from mistral_mlx.tokenizer.versions import CALL_TOKENS, TOOL_CALLS, number

from .structure import CALL_ID
from .tools import NAME, ToolCall, meaning_of

ARGS, ID = CALL_TOKENS
ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


def read_calls(tokenizer: Tokenizer, version: str, ids: Sequence[int]) -> list[ToolCall] | None:
    """Return the calls in an answer, none if it has no [TOOL_CALLS]; None if one of them cannot be read.

    A call without an id, or with that of a call before it, gets one of nine letters and digits. It is made from the
    answer, so that the same answer has the same ids.
    """
    begin = tokenizer.control.get(TOOL_CALLS)
    found: list[ToolCall] = []
    for part in _after_each(ids, begin):
        calls = _listed(tokenizer, part) if number(version) < 11 else _single(tokenizer, part)
        if calls is None:
            return None
        found += calls
    written = [call.id for call in found]
    return [_with_id(call, ids, i, written[:i]) for i, call in enumerate(found)]


def _after_each(ids: Sequence[int], mark: int | None) -> Iterator[list[int]]:
    """Yield the ids between one `mark` and the next, without those before the first."""
    places = [i for i, token in enumerate(ids) if token == mark]
    for place, end in zip(places, [*places[1:], len(ids)], strict=False):
        yield list(ids[place + 1 : end])


def _listed(tokenizer: Tokenizer, ids: Sequence[int]) -> list[ToolCall] | None:
    """Read ``[{"name": …, "arguments": …, "id": …}, …]``."""
    entries = meaning_of(tokenizer.decode(ids))
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        return None
    calls = [_checked(entry.get("name"), entry.get("arguments"), entry.get("id")) for entry in entries]
    return None if None in calls else [call for call in calls if call is not None]


def _single(tokenizer: Tokenizer, ids: Sequence[int]) -> list[ToolCall] | None:
    """Read ``name[ARGS]{…}`` or ``name[CALL_ID]id[ARGS]{…}``."""
    args, call_id = tokenizer.control.get(ARGS), tokenizer.control.get(ID)
    if args is None or ids.count(args) != 1 or ids.count(call_id) > 1:
        return None
    head, tail = list(ids[: ids.index(args)]), ids[ids.index(args) + 1 :]
    named = head.index(call_id) if call_id is not None and call_id in head else len(head)
    written_id = tokenizer.decode(head[named + 1 :]) or None
    call = _checked(tokenizer.decode(head[:named]).strip(), meaning_of(tokenizer.decode(tail)), written_id)
    return None if call is None else [call]


def _checked(name: object, arguments: object, call_id: object) -> ToolCall | None:
    if not isinstance(name, str) or not NAME.fullmatch(name) or not isinstance(arguments, dict):
        return None
    return ToolCall(name, arguments, call_id if isinstance(call_id, str) and CALL_ID.fullmatch(call_id) else None)


def _with_id(call: ToolCall, ids: Sequence[int], index: int, before: Sequence[str | None]) -> ToolCall:
    if call.id is not None and call.id not in before:
        return call
    value = int.from_bytes(hashlib.sha256(repr((list(ids), index)).encode()).digest(), "big")
    letters = []
    for _ in range(9):
        value, rest = divmod(value, len(ALPHABET))
        letters.append(ALPHABET[rest])
    return ToolCall(call.name, call.arguments, "".join(letters))

"""The content of a message: a text, or chunks of text and of thinking; knows no roles.

A thinking chunk is a channel of its own. Its marks become control ids; the same marks in a text never do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mistral_mlx.errors import OptionError, shown

JOINED = "\n\n"  # between messages that are made into one, and text chunks of one message before v15


@dataclass(frozen=True)
class Text:
    """A chunk of plain text."""

    text: str


@dataclass(frozen=True)
class Thinking:
    """A chunk of reasoning; one that is not closed goes on."""

    text: str
    closed: bool = True


Chunk = Text | Thinking
Content = str | tuple[Chunk, ...]


def checked_content(value: object, place: str) -> Content:
    """Return a text, or chunks written as ``{"type": "text", "text": …}`` or ``{"type": "thinking", "thinking": …}``.

    Raises OptionError, naming the message `place`, for anything else.
    """
    if isinstance(value, str):
        return value
    if not isinstance(value, list | tuple):
        raise OptionError(f"the content of {place} is {shown(value)}; give a text or a list of chunks")
    return tuple(_checked_chunk(chunk, place) for chunk in value)


def _checked_chunk(chunk: object, place: str) -> Chunk:
    kind = chunk.get("type") if isinstance(chunk, Mapping) else None
    if isinstance(chunk, Mapping) and kind == "text" and isinstance(chunk.get("text"), str):
        return Text(chunk["text"])
    if isinstance(chunk, Mapping) and kind == "thinking" and isinstance(chunk.get("thinking"), str):
        closed = chunk.get("closed", True)
        if not isinstance(closed, bool):
            raise OptionError(f"closed in the content of {place} is {shown(closed)}; give true or false")
        return Thinking(chunk["thinking"], closed)
    if kind in ("text", "thinking"):
        raise OptionError(f"the content of {place} has a chunk of {kind} without a text under {kind!r}")
    what = f"a chunk of the type {shown(kind)}" if kind is not None else f"the chunk {shown(chunk)}"
    raise OptionError(f"the content of {place} has {what}; give a text, or chunks of the types text and thinking")


def is_empty(content: Content) -> bool:
    """Return whether there is neither text nor thinking in `content`."""
    return not any(isinstance(chunk, Thinking) or chunk.text for chunk in chunks_of(content))


def has_thinking(content: Content) -> bool:
    """Return whether a chunk of `content` is thinking."""
    return any(isinstance(chunk, Thinking) for chunk in chunks_of(content))


def chunks_of(content: Content) -> tuple[Chunk, ...]:
    """Return the chunks of `content`; a text is one."""
    return (Text(content),) if isinstance(content, str) else content


def aggregated(contents: Sequence[Content], between_chunks: str = JOINED) -> Content:
    """Return the contents of several messages as one, as mistral-common does: a text if there is nothing else.

    Texts that follow each other are joined: with JOINED if they are of two messages, else with `between_chunks`.
    """
    found: list[Chunk] = []
    parts: list[str] = []
    for content in contents:
        is_new = bool(parts)
        for chunk in chunks_of(content):
            if isinstance(chunk, Thinking):
                found += [Text("".join(parts))] if parts else []
                found.append(chunk)
                parts.clear()
            elif chunk.text:
                between = "" if not parts else JOINED if is_new else between_chunks
                parts.append(between + chunk.text)
                is_new = False
    if not found:
        return "".join(parts)
    return (*found, *([Text("".join(parts))] if parts else []))

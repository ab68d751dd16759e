"""Messages to ids, in the format a model was trained on; knows nothing of models or caches.

Mistral's formats v1, v2, v3 and v7 are written here as ids, never as text that would have to be taken apart again, and
equal mistral-common's. Models with a chat template of another kind (ChatML, Zephyr, Llama 3) have it rendered and
the control tokens of the rendering turned into ids. Either way the text of a message never becomes a control id.

The system prompt stands where mistral-common puts it: in the first user turn for v1, in the *last* one for v2 and v3,
in a block of its own for v7. For v2 and v3 that means that with a system prompt every new turn changes ids of the turn
before; a session then prefills again from there, and after its window has wrapped, from the beginning.

An assistant message may carry `ids`, the ids as they were generated, without the one that ended the turn. They are
taken as they are: text to ids and back is not the way generated ids came about.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from mistral_mlx.errors import OptionError, TokenizerError, shown
from mistral_mlx.tokenizer.base import Tokenizer

from .template import TemplateRejection, render_chat

ROLES = ("system", "user", "assistant")
FORMATS = ("v1", "v2", "v3", "v7")
JOINED = "\n\n"  # between messages that are made into one


@dataclass(frozen=True)
class Turn:
    """A checked message; `ids` only where they were generated."""

    role: str
    content: str
    ids: tuple[int, ...] = ()


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, object]], *, template: str | None = None
) -> list[int]:
    """Return the ids after which the model writes the next answer.

    `messages` have a "role" (system, user or assistant) and a "content"; assistant messages may have "ids". After a
    user message an answer follows; an assistant message at the end is left open, for the model to continue. Messages
    of the same role that follow each other are joined, empty assistant messages are left out.

    `template` is one of v1, v2, v3 and v7 to use that format instead of the model's own.

    Raises OptionError for messages or a template that cannot be, TokenizerError if the model has no usable format.
    """
    turns = _merged(_checked(messages))
    version = chat_format(tokenizer, template)
    if version is None:
        return _encode_by_template(tokenizer, turns)
    if version == "v7":
        return _encode_v7(tokenizer, turns)
    return _encode_v1_to_v3(tokenizer, turns, version)


def chat_format(tokenizer: Tokenizer, template: str | None = None) -> str | None:
    """Return which of FORMATS is written, None for the chat template of the model.

    Raises OptionError for a `template` that cannot be, TokenizerError if the model has no usable format.
    """
    if template is not None:
        if template not in FORMATS:
            raise OptionError(f"there is no chat format {shown(template)}; choose one of {', '.join(FORMATS)}")
        needed = {"v1": (), "v7": ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")}
        for text in needed.get(template, ("[INST]", "[/INST]")):
            if text not in tokenizer.control:
                raise OptionError(f"this model has no {text} token, which the chat format {template} needs; use v1")
        return template
    own = tokenizer.chat_template
    is_mistral = own is None or ("[INST]" in own and "<<SYS>>" not in own)  # <<SYS>> is Llama 2's
    if tokenizer.version is not None and is_mistral:
        return tokenizer.version
    if own is None:
        raise TokenizerError("this model has no chat template; complete a text instead, or choose a chat format")
    return None


# Which messages


def _checked(messages: Sequence[Mapping[str, object]]) -> list[Turn]:
    turns = [_checked_turn(message, number) for number, message in enumerate(messages, start=1)]
    turns = [turn for turn in turns if turn.role != "assistant" or turn.content or turn.ids]
    if not turns:
        raise OptionError("there are no messages; give at least one user message")
    if turns[-1].role == "system":
        raise OptionError("the last message is a system message; put a user message behind it")
    return turns


def _checked_turn(message: Mapping[str, object], number: int) -> Turn:
    if not isinstance(message, Mapping):
        raise OptionError(f"message {number} is {shown(message)}; give a mapping with role and content")
    role, content, ids = message.get("role"), message.get("content"), message.get("ids") or ()
    if role not in ROLES or not isinstance(role, str):
        raise OptionError(f"message {number} has the role {shown(role)}; use one of {', '.join(ROLES)}")
    if not isinstance(content, str):
        raise OptionError(f"the content of message {number} is {shown(content)}; give a text")
    if ids and role != "assistant":
        raise OptionError(f"message {number} has ids and the role {role}; only assistant messages have ids")
    if not isinstance(ids, Sequence) or not all(isinstance(i, int) and i >= 0 for i in ids):
        raise OptionError(f"the ids of message {number} are {shown(ids)}; give a list of token ids")
    return Turn(role, content, tuple(ids))


def _merged(turns: list[Turn]) -> list[Turn]:
    """Join neighbours of the same role, but for system messages, which v7 keeps apart, and generated ids."""
    merged: list[Turn] = []
    for turn in turns:
        before = merged[-1] if merged else None
        mergeable = turn.role != "system" and not turn.ids
        if before is not None and before.role == turn.role and mergeable and not before.ids:
            merged[-1] = replace(before, content=_joined([before.content, turn.content]))
        else:
            merged.append(turn)
    return merged


def _joined(texts: Sequence[str]) -> str:
    return JOINED.join(text for text in texts if text)


# Mistral's own formats


def _encode_v1_to_v3(tokenizer: Tokenizer, turns: list[Turn], version: str) -> list[int]:
    system = _joined([turn.content for turn in turns if turn.role == "system"])
    turns = [turn for turn in turns if turn.role != "system"]
    if turns[0].role != "user":
        turns.insert(0, Turn("user", ""))
    users = [index for index, turn in enumerate(turns) if turn.role == "user"]
    place = users[0] if version == "v1" else users[-1]
    if system:
        turns[place] = replace(turns[place], content=system + JOINED + turns[place].content)
    ids = [_required(tokenizer.bos_id, "bos")]
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            ids += _assistant(tokenizer, turn, is_last=index + 1 == len(turns), strip=version != "v1")
        elif version == "v1":
            ids += tokenizer.encode(f"[INST] {turn.content} [/INST]")
        else:
            ids += _between(tokenizer, "[INST]", turn.content, "[/INST]")
    return ids


def _encode_v7(tokenizer: Tokenizer, turns: list[Turn]) -> list[int]:
    ids = [_required(tokenizer.bos_id, "bos")]
    for index, turn in enumerate(turns):
        if turn.role == "assistant":
            ids += _assistant(tokenizer, turn, is_last=index + 1 == len(turns), strip=True)
        elif turn.role == "user":
            ids += _between(tokenizer, "[INST]", turn.content, "[/INST]")
        else:
            ids += _between(tokenizer, "[SYSTEM_PROMPT]", turn.content, "[/SYSTEM_PROMPT]")
    return ids


def _assistant(tokenizer: Tokenizer, turn: Turn, *, is_last: bool, strip: bool) -> list[int]:
    content = turn.content.rstrip(" ") if strip else turn.content
    ids = list(turn.ids) or tokenizer.encode(content)
    return ids if is_last else [*ids, _required(tokenizer.eos_id, "eos")]


def _between(tokenizer: Tokenizer, begin: str, content: str, end: str) -> list[int]:
    return [tokenizer.control[begin], *tokenizer.encode(content), tokenizer.control[end]]


def _required(token_id: int | None, name: str) -> int:
    if token_id is None:
        raise TokenizerError(f"this tokenizer has no {name} token, which every chat format needs")
    return token_id


# Chat templates


def _encode_by_template(tokenizer: Tokenizer, turns: list[Turn]) -> list[int]:
    """Render the template of the model, with the messages in disguise, and turn the rendering into ids.

    Characters that control tokens begin and end with are replaced in the messages by private ones that occur in none
    of them, so that every control token of the rendering was written by the template, whatever it does to the text.
    Generated ids stand in the rendering as one private character each.
    """
    disguise = _Disguise(tokenizer, turns)
    text = _render(tokenizer, turns, disguise)
    ids: list[int] = []
    for plain, cut in disguise.split(text):
        if plain:
            ids += tokenizer.encode_after_control(plain) if ids else tokenizer.encode(plain)
        if cut in disguise.slots:
            ids += disguise.slots[cut]
        elif cut:
            ids.append(tokenizer.control[cut])
    return ids


class _Disguise:
    """Private characters that stand for the edges of control tokens and for generated ids, and that mark what was
    seen of the system prompt and where an open answer ends.
    """

    def __init__(self, tokenizer: Tokenizer, turns: Sequence[Turn]) -> None:
        free = _free_characters({*(tokenizer.chat_template or ""), *(c for turn in turns for c in turn.content)})
        control = [text for text in tokenizer.control if text.strip()]  # blank ones cannot be told from plain text
        edges = sorted({edge for text in control for edge in (text.strip()[0], text.strip()[-1])})
        self._on = {ord(edge): next(free) for edge in edges}
        self.seen, self.end = next(free), next(free)
        self._off = {ord(character): chr(edge) for edge, character in self._on.items()} | {ord(self.seen): ""}
        self._slot_of = {turn.ids: next(free) for turn in turns if turn.ids}
        self.slots = {slot: ids for ids, slot in self._slot_of.items()}
        longest_first = sorted(control, key=len, reverse=True)
        self._cuts = re.compile("|".join(map(re.escape, [*longest_first, *self.slots])) or "(?!)")

    def put_on(self, turn: Turn) -> str:
        if turn.ids:
            return self._slot_of[turn.ids]
        content = turn.content.translate(self._on)
        if turn.role != "system" or not content.strip():
            return content
        inside = len(content.rstrip()) - 1  # where no trimming gets at the mark
        return content[:inside] + self.seen + content[inside:]

    def split(self, text: str) -> Iterator[tuple[str, str]]:
        """Yield each plain text, taken out of its disguise, and the control token or slot behind it."""
        at = 0
        for cut in self._cuts.finditer(text):
            yield text[at : cut.start()].translate(self._off), cut.group()
            at = cut.end()
        yield text[at:].translate(self._off), ""


def _free_characters(used: set[str]) -> Iterator[str]:
    """Noncharacters first, which no text should have; then what is reserved for private use."""
    for code in (*range(0xFDD0, 0xFDF0), *range(0xF0000, 0xFFFFE), *range(0x100000, 0x10FFFE)):
        if chr(code) not in used:
            yield chr(code)
    raise OptionError("the messages use up all private characters of Unicode; leave some out")


def _render(tokenizer: Tokenizer, turns: list[Turn], disguise: _Disguise) -> str:
    """Render, with the system prompt in the first user message if the template does not take or drops it."""
    system = [turn for turn in turns if turn.role == "system" and turn.content.strip()]
    if not system:
        return _render_turns(tokenizer, turns, disguise)
    try:
        text = _render_turns(tokenizer, turns, disguise)
        if text.count(disguise.seen) >= len(system):
            return text
    except TemplateRejection:
        pass
    return _render_turns(tokenizer, _system_in_first_user(turns), disguise)


def _system_in_first_user(turns: Sequence[Turn]) -> list[Turn]:
    system = _joined([turn.content for turn in turns if turn.role == "system"])
    others = _merged([turn for turn in turns if turn.role != "system"])
    first = next((index for index, turn in enumerate(others) if turn.role == "user"), None)
    if first is None:
        return [Turn("user", system), *others]
    others[first] = replace(others[first], content=_joined([system, others[first].content]))
    return others


def _render_turns(tokenizer: Tokenizer, turns: Sequence[Turn], disguise: _Disguise) -> str:
    assert tokenizer.chat_template is not None
    text_of_id = {token_id: text for text, token_id in tokenizer.control.items()}
    is_open = turns[-1].role == "assistant"
    messages = [{"role": turn.role, "content": disguise.put_on(turn)} for turn in turns]
    if is_open:
        messages[-1]["content"] += disguise.end
    text = render_chat(
        tokenizer.chat_template,
        messages,
        add_generation_prompt=not is_open,
        bos_token=None if tokenizer.bos_id is None else text_of_id.get(tokenizer.bos_id),
        eos_token=None if tokenizer.eos_id is None else text_of_id.get(tokenizer.eos_id),
    )
    if not is_open:
        return text
    if disguise.end not in text:
        raise TokenizerError("the chat template leaves out the last assistant message, so that it cannot be continued")
    return text[: text.rindex(disguise.end)]

"""The ids of a conversation by the model's own chat template, in which no message can spell a control token.

Characters that control tokens begin and end with are replaced in the messages by private ones that occur in none of
them, so that the template wrote every control token of the rendering, whatever it does to the text. Generated ids are
one private character each in the rendering.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

from mistral_mlx.errors import OptionError, TokenizerError
from mistral_mlx.tokenizer.base import Tokenizer

from .messages import ChatMessage, joined, merged
from .template import TemplateRejection, render_chat


def encode_by_template(tokenizer: Tokenizer, turns: list[ChatMessage]) -> list[int]:
    """Render the template of the model, with the messages in disguise, and turn the rendering into ids.

    Characters that control tokens begin and end with are replaced in the messages by private ones that occur in none
    of them, so that every control token of the rendering was written by the template, whatever it does to the text.
    Generated ids stand in the rendering as one private character each.
    """
    disguise = _Disguise(tokenizer, turns)
    text = _render(tokenizer, turns, disguise)
    if disguise.asked not in text and any(turn.role == "user" and turn.text.strip() for turn in turns):
        raise TokenizerError(
            "the chat template leaves out what the user says; correct it, or name a chat format with --template"
        )
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
    seen of the system prompt and of the users, and where an open answer ends.
    """

    def __init__(self, tokenizer: Tokenizer, turns: Sequence[ChatMessage]) -> None:
        free = _free_characters({*(tokenizer.chat_template or ""), *(c for turn in turns for c in turn.text)})
        control = [text for text in tokenizer.control if text.strip()]  # blank ones cannot be told from plain text
        edges = sorted({edge for text in control for edge in (text.strip()[0], text.strip()[-1])})
        self._on = {ord(edge): next(free) for edge in edges}
        self.seen, self.asked, self.end = next(free), next(free), next(free)
        self._off = {ord(character): chr(edge) for edge, character in self._on.items()}
        self._off |= {ord(self.seen): "", ord(self.asked): ""}
        self._slot_of = {turn.ids: next(free) for turn in turns if turn.ids}
        self.slots = {slot: ids for ids, slot in self._slot_of.items()}
        longest_first = sorted(control, key=len, reverse=True)
        self._cuts = re.compile("|".join(map(re.escape, [*longest_first, *self.slots])) or "(?!)")

    def put_on(self, turn: ChatMessage) -> str:
        if turn.ids:
            return self._slot_of[turn.ids]
        content = turn.text.translate(self._on)
        if turn.role == "assistant" or not content.strip():
            return content
        inside = len(content.rstrip()) - 1  # where no trimming gets at the mark
        return content[:inside] + (self.seen if turn.role == "system" else self.asked) + content[inside:]

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


def _render(tokenizer: Tokenizer, turns: list[ChatMessage], disguise: _Disguise) -> str:
    """Render, with the system prompt in the first user message if the template does not take or drops it."""
    system = [turn for turn in turns if turn.role == "system" and turn.text.strip()]
    if not system:
        return _render_turns(tokenizer, turns, disguise)
    try:
        text = _render_turns(tokenizer, turns, disguise)
        if text.count(disguise.seen) >= len(system):
            return text
    except TemplateRejection:
        pass
    return _render_turns(tokenizer, _system_in_first_user(turns), disguise)


def _system_in_first_user(turns: Sequence[ChatMessage]) -> list[ChatMessage]:
    system = joined([turn.text for turn in turns if turn.role == "system"])
    others = merged([turn for turn in turns if turn.role != "system"])
    first = next((index for index, turn in enumerate(others) if turn.role == "user"), None)
    if first is None:
        return [ChatMessage("user", system), *others]
    others[first] = replace(others[first], content=joined([system, others[first].text]))
    return others


def _render_turns(tokenizer: Tokenizer, turns: Sequence[ChatMessage], disguise: _Disguise) -> str:
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

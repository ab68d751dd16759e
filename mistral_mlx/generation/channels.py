"""Tells the parts of an answer apart while its ids arrive: reasoning, text, and calls of tools. Knows no model.

Reasoning is what two control tokens enclose ([THINK] and [/THINK]), or, in models without them, a plain <think> at the
beginning of the answer and </think>. The marks belong to no part. An unclosed mark makes everything after it reasoning.
Calls are all ids from the first [TOOL_CALLS] on; they have no text here.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mistral_mlx.tokenizer.choose import Tokenizer
from mistral_mlx.tokenizer.versions import THINK_TOKENS, TOOL_CALLS

from .stop import StoppedText

PLAIN_BEGIN, PLAIN_END = "<think>", "</think>"
HEADER = re.compile(r"\s*assistant\n")  # of an answer in ChatML, behind its control token


@dataclass(frozen=True)
class Parts:
    """A piece of an answer, or a whole one."""

    text: str = ""
    reasoning: str = ""


class AnswerChannels:
    """Ids of one answer to its parts. The text ends before the first stop string; reasoning is not searched for any.

    `before` are the ids of the prompt. An answer that `continues` may begin inside reasoning, and so may one for which
    the template has written the mark. With `calls`, tools are offered. Without `splits`, everything is text, as for a
    text without a chat format.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        stop: Sequence[str] = (),
        *,
        before: Sequence[int] = (),
        continues: bool = False,
        splits: bool = True,
        calls: bool = False,
    ) -> None:
        pairs = (THINK_TOKENS, (PLAIN_BEGIN, PLAIN_END)) if splits else ()
        known = [pair for pair in pairs if pair[0] in tokenizer.control and pair[1] in tokenizer.control]
        self._marks = [tokenizer.control[text] for text in known[0]] if known else []  # that begin and end reasoning
        self._plain = _PlainMarks() if splits and not known else None
        self._call = tokenizer.control.get(TOOL_CALLS) if calls else None
        self._tokenizer = tokenizer
        self.thinking, self.calling = False, False
        if splits:
            self._go_through(before, continues=continues)
        self._text = StoppedText(
            tokenizer.detokenizer(continues=continues and not (self._marks and self.thinking)), stop
        )
        self._thought = tokenizer.detokenizer(continues=continues)
        self.reasoning_tokens = 0
        self._undecided = 0  # tokens of a beginning that may still become <think>

    @property
    def think(self) -> int | None:
        """The control token that begins reasoning, if there is one."""
        return self._marks[0] if self._marks else None

    @property
    def stopped(self) -> bool:
        """Whether a stop string has ended the text."""
        return self._text.stopped

    def add(self, token: int) -> Parts:
        """Return the parts that `token` releases."""
        if self.calling:
            return Parts()
        if token == self._call:
            self.calling = True
            return self._flush(cut=False)
        if self._plain is not None:
            return self._add_plain(self._text.decode(token), self._plain)
        if token in self._marks:
            was_thinking, self.thinking = self.thinking, token == self._marks[0]
            self.reasoning_tokens += 1
            return Parts(reasoning=self._thought.flush()) if was_thinking else Parts(self._text.add(token))
        if self.thinking:
            self.reasoning_tokens += 1
            return Parts(reasoning=self._thought.add(token))
        return Parts(self._text.add(token))

    def finish(self, *, cut: bool) -> Parts:
        """Return what is still held back; no half character if the answer was `cut` off."""
        return Parts() if self.calling else self._flush(cut=cut)

    def _flush(self, *, cut: bool) -> Parts:
        if self._plain is None:
            return Parts(self._text.finish(cut=cut), self._thought.flush(cut=cut))
        last = self._add_plain(self._text.decode_rest(cut=cut), self._plain, counts=False)
        rest = self._plain.rest()
        text = self._text.release(rest.text) + self._text.finish(cut=cut)
        return Parts(last.text + text, last.reasoning + rest.reasoning)

    def _add_plain(self, text: str, marks: "_PlainMarks", *, counts: bool = True) -> Parts:
        was_thinking = marks.inside
        parts = marks.add(text)
        self.thinking = marks.inside
        if marks.undecided:
            self._undecided += counts
        elif was_thinking or marks.inside or parts.reasoning:
            self.reasoning_tokens += counts + self._undecided
            self._undecided = 0
        else:
            self._undecided = 0
        return Parts(self._text.release(parts.text), parts.reasoning)

    def _go_through(self, before: Sequence[int], *, continues: bool) -> None:
        """Find out whether the prompt ends inside reasoning."""
        tail = _tail(self._tokenizer, before, self._marks)
        marks = [token for token in tail if token in self._marks]
        self.thinking = bool(marks) and marks[-1] == self._marks[0]
        if self._plain is None:
            return
        text = HEADER.sub("", self._tokenizer.decode(tail), count=1)
        if continues or text.lstrip().startswith(PLAIN_BEGIN):
            self._plain.add(text)
            self._plain.rest()
            self.thinking = self._plain.inside


def begun_by_prompt(tokenizer: Tokenizer, before: Sequence[int]) -> list[int]:
    """Return the ids at the end of the prompt `before` that begin the reasoning of its answer; none if none do."""
    channels = AnswerChannels(tokenizer, before=before)
    tail = _tail(tokenizer, before, channels._marks)
    if not channels.thinking:
        return []
    if channels._marks:
        return tail[tail.index(channels._marks[0]) :]
    starts = (i for i in range(len(tail)) if tokenizer.decode(tail[i:]).startswith(PLAIN_BEGIN))
    return tail[next(starts, len(tail)) :]


def _tail(tokenizer: Tokenizer, before: Sequence[int], marks: Sequence[int]) -> list[int]:
    """Return what follows the last control token of a prompt that is none of `marks`: the answer, or its beginning."""
    control = set(tokenizer.control.values()).difference(marks)
    return list(before[next((i + 1 for i in reversed(range(len(before))) if before[i] in control), 0) :])


def split_answer(tokenizer: Tokenizer, ids: Sequence[int]) -> Parts:
    """Return the text and the reasoning of a whole answer."""
    channels = AnswerChannels(tokenizer)
    parts = [*(channels.add(token) for token in ids), channels.finish(cut=False)]
    return Parts("".join(part.text for part in parts), "".join(part.reasoning for part in parts))


class _PlainMarks:
    """Finds <think> at the beginning of a text, and </think> after it; the line feeds beside them are part of them."""

    def __init__(self) -> None:
        self.undecided, self.inside = True, False
        self._held = ""
        self._after_mark = False

    def add(self, text: str) -> Parts:
        """Return what `text` makes certain."""
        if not (self.undecided or self.inside or self._after_mark):
            return Parts(text)
        self._held += text
        if self.undecided:
            return self._begin()
        return self._go_on() if self.inside else self._after()

    def rest(self) -> Parts:
        """Return what is held back; nothing more comes, or what comes belongs to the same part."""
        held, self._held = self._held, ""
        self.undecided = False
        return Parts(reasoning=held) if self.inside else Parts(held)

    def _begin(self) -> Parts:
        begun = self._held.lstrip()
        if begun.startswith(PLAIN_BEGIN):
            self.undecided, self.inside, self._after_mark = False, True, True
            self._held = begun[len(PLAIN_BEGIN) :]
            return self._go_on()
        if PLAIN_BEGIN.startswith(begun):
            return Parts()
        self.undecided = False
        held, self._held = self._held, ""
        return Parts(held)

    def _go_on(self) -> Parts:
        if self._after_mark:
            self._held = self._held.lstrip("\n")
            self._after_mark = not self._held
        thought, mark, rest = self._held.partition(PLAIN_END)
        if mark:
            self.inside, self._after_mark, self._held = False, True, rest
            return Parts(self._after().text, thought.rstrip("\n"))
        certain = thought[: len(thought) - _n_begun(thought)].rstrip("\n")
        self._held = thought[len(certain) :]
        return Parts(reasoning=certain)

    def _after(self) -> Parts:
        text = self._held.lstrip("\n")
        self._held, self._after_mark = "", not text
        return Parts(text)


def _n_begun(text: str) -> int:
    """Return how many characters at the end may be the beginning of </think>."""
    return next((n for n in range(len(PLAIN_END) - 1, 0, -1) if text.endswith(PLAIN_END[:n])), 0)

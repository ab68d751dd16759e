"""Puts a summary, which the model writes, in the place of the oldest turns of a conversation."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from mistral_mlx.generation.answer import AnswerOptions

from .context_use import RESERVED_SHARE
from .session import Answer, Session
from .turns import Message, count_turns, is_answer, turn_start, user_message

REQUEST = (
    "Summarize our conversation so far in at most {words} words, so that you can go on from the summary alone. Keep "
    "names, numbers, decisions, open questions, and code that is still needed. Write only the summary, in the language "
    "of the conversation."
)
LEAST_TOKENS, MAX_TOKENS = 32, 1024  # of a summary; it may have half of what it takes the place of
BEGINS = "Summary of our conversation so far:\n\n"
TAKEN_UP = "I have read the summary, and go on from it."
CUT = "\n\n[…]\n\n"  # in the place of the middle of a message that is too long to be summarized


@dataclass
class Compaction:
    """What is to be done to `session`, whose messages stay as they are: all turns but the last become a summary.

    `result` has the messages of the shorter conversation once `summarize` has come to its end: a summary as a message
    of the user, a sign of the model that it has read it, and the turns that were kept, with their ids.
    """

    session: Session
    old: Sequence[Message]
    kept: Sequence[Message]
    result: list[Message] | None = None

    @classmethod
    def of(cls, session: Session, n_kept: int) -> "Compaction | None":
        """Return what is to be done to keep the last `n_kept` turns; None if nothing is before them but a summary.

        A last message without an answer is kept in any case.
        """
        messages = session.messages
        n_turns = count_turns(messages)
        if n_kept >= n_turns:
            return None
        if not n_kept and not is_answer(messages[-1]):
            n_kept = 1
        start = turn_start(messages, n_kept) if n_kept else len(messages)
        old = messages[:start]
        if count_turns(old) == 0 or (count_turns(old) == 1 and _is_summary(old)):
            return None
        return cls(session, old, messages[start:])

    @property
    def max_tokens(self) -> int:
        """How long the summary may be, so that it is shorter than what it takes the place of."""
        n = len(self.session.encode([*self.old, user_message("a")], tells_schema=False))
        return max(LEAST_TOKENS, min(MAX_TOKENS, n // 2))

    def summarize(self, options: AnswerOptions) -> Answer:
        """Yield the summary piece by piece; where the old turns do not fit together, several, each over the last.

        It is asked for in the timeline of the session, which holds the old turns already. If the iterator is closed
        early or an exception ends it, there is no result. Nor is there one if the model writes nothing.

        Raises ContextError if not even a part of the old turns fits the model's context.
        """
        rest = list(self.old)
        while rest:
            part, rest = self._part(rest, options.max_tokens)
            text = ""
            for response in self.session.aside([*part, _request(options.max_tokens)], options):
                text += response.text
                yield response
            if not (summary := text.strip()):
                return
            pair = _summary(summary)
            rest = [*pair, *rest] if rest else []
        asides = [message for message in self.old if message["role"] == "system"]
        self.result = [*asides, *pair, *self.kept]

    def _part(self, messages: list[Message], max_tokens: int) -> tuple[list[Message], list[Message]]:
        """Return the oldest turns that fit the context with the request and its answer, one new one at least; the rest.

        What is too long even alone loses the middle of its texts.
        """
        begins = [i for i, message in enumerate(messages) if message["role"] == "user"]
        ends, least = [*begins[1:], len(messages)], 1 + _is_summary(messages)
        fitting = bisect_right(ends, 0, key=lambda end: int(not self._fits(messages[:end], max_tokens)))
        end = ends[min(max(fitting, least), len(ends)) - 1]
        part = messages[:end]
        while not self._fits(part, max_tokens) and (shorter := _without_middle(part)):
            part = shorter
        return part, messages[end:]

    def _fits(self, messages: Sequence[Message], max_tokens: int) -> bool:
        limit = self.session.model.args.context_limit
        if limit is None:
            return True
        n = len(self.session.encode([*messages, _request(max_tokens)], tells_schema=False))
        return n <= limit - min(max_tokens, limit // RESERVED_SHARE)


def _request(max_tokens: int) -> Message:
    return user_message(REQUEST.format(words=max(10, 3 * max_tokens // 10)))


def _summary(text: str) -> list[Message]:
    """Return a summary as a turn: the roles of a conversation alternate, and its system prompt stays the user's."""
    return [user_message(BEGINS + text), {"role": "assistant", "content": TAKEN_UP}]


def _is_summary(messages: Sequence[Message]) -> bool:
    """Return whether the first turn is a summary."""
    first = next((message for message in messages if message["role"] == "user"), None)
    return first is not None and str(first["content"]).startswith(BEGINS)


def _without_middle(messages: Sequence[Message]) -> list[Message] | None:
    """Return the messages with a half of the longest one's text; None if no text is left to be cut."""
    longest = max(range(len(messages)), key=lambda i: len(str(messages[i]["content"])))
    text = str(messages[longest]["content"]).replace(CUT, "")
    if (n := len(text) // 4) == 0:
        return None
    cut: Message = {"role": messages[longest]["role"], "content": f"{text[:n]}{CUT}{text[-n:]}"}
    return [*messages[:longest], cut, *messages[longest + 1 :]]

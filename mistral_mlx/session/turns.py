"""Groups messages into turns: a user message and everything until the next user message."""

from collections.abc import Mapping, Sequence

from mistral_mlx.errors import OptionError

# "role", "content"; a generated answer also has "ids" and, if it has any, "reasoning"; an interrupted one "interrupted"
Message = Mapping[str, object]


def user_message(text: str) -> Message:
    """Return a user message with `text`."""
    return {"role": "user", "content": text}


def is_answer(message: Message) -> bool:
    """Return whether the model wrote `message`."""
    return message["role"] == "assistant"


def turn_start(messages: Sequence[Message], n: int) -> int:
    """Return the index of the `n`-th last user message. Raises OptionError if there are fewer."""
    places = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if n < 1:
        raise OptionError(f"turn {n} from the end does not exist; the last one is 1")
    if n > len(places):
        there = "there is only 1 turn" if len(places) == 1 else f"there are only {len(places)} turns"
        raise OptionError(f"{there} to go back" if places else "there is no turn yet; ask something first")
    return places[-n]


def without_oldest_turn(messages: Sequence[Message]) -> list[Message] | None:
    """Return `messages` without the first turn, or None if it is the only turn.

    System messages stay.
    """
    places = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if len(places) < 2:
        return None
    return [*(m for m in messages[: places[1]] if m["role"] == "system"), *messages[places[1] :]]


def count_turns(messages: Sequence[Message]) -> int:
    """Return the number of turns in `messages`."""
    return sum(message["role"] == "user" for message in messages)

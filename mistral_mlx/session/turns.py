"""Messages as turns: a turn is a user message and all that follows it until the next one; knows nothing of ids."""

from collections.abc import Mapping, Sequence

from mistral_mlx.errors import OptionError

Message = Mapping[str, object]  # "role", "content"; of a generated answer "ids", of a broken off one "interrupted"


def user_message(text: str) -> Message:
    """Return `text` as a message of the user."""
    return {"role": "user", "content": text}


def is_answer(message: Message) -> bool:
    """Whether the model wrote it."""
    return message["role"] == "assistant"


def turn_start(messages: Sequence[Message], n: int) -> int:
    """Return the index of the `n`-th user message from the end. Raises OptionError if there are fewer."""
    places = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if n < 1:
        raise OptionError(f"turn {n} from the end is no turn; the last one is 1")
    if n > len(places):
        there = "there is only 1 turn" if len(places) == 1 else f"there are only {len(places)} turns"
        raise OptionError(f"{there} to go back" if places else "there is no turn yet; ask something first")
    return places[-n]


def without_oldest_turn(messages: Sequence[Message]) -> list[Message] | None:
    """Return `messages` without the first turn; None if it is the last one too. System messages stay."""
    places = [index for index, message in enumerate(messages) if message["role"] == "user"]
    if len(places) < 2:
        return None
    return [*(m for m in messages[: places[1]] if m["role"] == "system"), *messages[places[1] :]]


def count_turns(messages: Sequence[Message]) -> int:
    """Return how many turns there are."""
    return sum(message["role"] == "user" for message in messages)

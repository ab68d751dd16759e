"""The system prompt of a chat is kept on the disk, and the next chat takes it up."""

import re

import pytest
from helpers.chat import chat, said
from helpers.tiny_folder import write_tiny_folder

SYSTEM = ("--system", "the model said hello and the world said nothing at all. " * 12)


@pytest.fixture(scope="module", params=[8, 4096])
def model(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    return write_tiny_folder(folder, sliding_window=request.param, max_position_embeddings=4096)


def cached(result):
    """Return how many tokens of each prompt were cached."""
    return [int(n) for line in said(result) for n in re.findall(r"\((\d+) cached", line)]


def test_the_second_chat_takes_up_the_system_prompt_of_the_first(model):
    first, second, cold = (
        chat(model, "Hello\nAgain\n/clear\nHello\n", *SYSTEM, "--stats", *more) for more in ((), (), ("--no-cache",))
    )
    assert first.stdout == second.stdout == cold.stdout
    assert cached(first)[0] == 0 and cached(second)[0] >= 64
    assert cached(first)[2] == cached(second)[2] >= 64  # after /clear
    assert (cached(cold)[0], cached(cold)[2]) == (0, 0)


def test_a_chat_without_a_system_prompt_keeps_nothing(model, home):
    chat(model, "Hello\n")
    assert not (home / "kept-prompts").exists()

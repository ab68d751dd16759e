"""The interface of a fuzzed reader of untrusted data."""

from pathlib import Path
from random import Random

from mistral_mlx.errors import MistralMLXError


class Reader:
    """`place` is a folder of its own."""

    expected: tuple[type[BaseException], ...] = (MistralMLXError,)

    def __init__(self, place: Path) -> None:
        self.place = place

    def __call__(self, rng: Random) -> None:
        raise NotImplementedError

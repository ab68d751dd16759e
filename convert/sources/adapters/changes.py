"""What an adapter changes, and the checks that both formats of adapters share."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mistral_mlx.convert.storage.low_rank import LowRank
from mistral_mlx.errors import CheckpointError, ConfigError, shown
from mistral_mlx.files.keys import Keys
from mistral_mlx.files.safetensors import TensorEntry

CONFIG_NAME = "adapter_config.json"
MAX_RANK = 4096
MAX_NUMBER = float.fromhex("0x1.fffffep127")  # of float32, in which updates are computed
EMBEDDING = "model.embed_tokens"


@dataclass(frozen=True)
class Changes:
    """What an adapter changes, by the name of the weight."""

    updates: Mapping[str, LowRank]
    whole: Mapping[str, TensorEntry]  # weights it replaces
    base: object  # the model it was trained for, as its config says
    apart: bool = False  # a tied head keeps the embedding as it was: PEFT wraps the two modules one by one
    beside: Sequence[str] = ()  # what it changes beside a text model, which is not converted


def keys_of(config: Mapping[str, object]) -> Keys:
    """Return the keys of an adapter's config, whose refusals are ConfigErrors."""
    return Keys(config, f"{CONFIG_NAME}: ", ConfigError)


def number(keys: Keys, value: object, key: str) -> float:
    """Return a number of the config that float32 holds. Raises ConfigError for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_NUMBER:
        raise keys.bad(key, value, "a number that float32 holds")
    return float(value)


def rank(keys: Keys, value: object, key: str) -> int:
    """Return a rank of the config. Raises ConfigError for anything else."""
    return keys.checked_whole(key, value, high=MAX_RANK)


def check_rank(entry: TensorEntry, found: int | None, expected: int) -> None:
    """Raise CheckpointError if the tensor `entry` has another rank than the config says."""
    if found != expected:
        raise CheckpointError(
            f"the adapter's {shown(entry.name)} has shape {list(entry.shape)}, {CONFIG_NAME} says rank {expected}"
        )

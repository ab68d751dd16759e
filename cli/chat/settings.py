"""What can be set in a chat while it runs, and is saved with it: sampling, limits, and how answers are shown."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING

from mistral_mlx.cli.options import shared
from mistral_mlx.cli.options.sampling import OPTIONS, make_sampler
from mistral_mlx.errors import OptionError, shown

if TYPE_CHECKING:
    from mistral_mlx.sampling.sampler import Sampler

OVERFLOW = ("drop-turns", "stop")
SAMPLING = tuple(OPTIONS)
_SWITCHES = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


@dataclass
class Settings:
    """`seed` None draws one, and so does the word "random". Defaults are those of the command line."""

    temperature: float = shared.TEMPERATURE
    top_p: float = shared.TOP_P
    top_k: int = shared.TOP_K
    min_p: float = shared.MIN_P
    typical_p: float = 1.0
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    repetition_penalty: float = shared.REPETITION_PENALTY
    repetition_context_size: int = 64
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: list[str] | None = None
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = -1
    dry_sequence_breaker: list[str] | None = None
    seed: int | None = None
    max_tokens: int = shared.MAX_TOKENS
    stop: list[str] = field(default_factory=list)
    on_overflow: str = OVERFLOW[0]
    stats: bool = False
    plain: bool = False

    def sampler(self) -> Sampler:
        """Return a sampler of these settings. Raises OptionError if one is out of range."""
        return make_sampler(**{name: getattr(self, name) for name in SAMPLING})

    def check(self) -> None:
        """Raise OptionError if a value is out of range."""
        if self.max_tokens < 1:
            raise OptionError(f"max_tokens is {self.max_tokens}; it must be at least 1")
        if "" in self.stop:
            raise OptionError("a stop string is empty; give at least one character")
        if self.on_overflow not in OVERFLOW:
            raise OptionError(f"on_overflow is {shown(self.on_overflow)}; it must be {' or '.join(OVERFLOW)}")
        self.sampler()

    def changed(self, key: str, value: str) -> Settings:
        """Return these settings with `key` set to what the text `value` means. Raises OptionError."""
        name = key.replace("-", "_")
        if name not in NAMES:
            raise OptionError(f"there is no setting {shown(key)}; there are {', '.join(NAMES)}")
        settings = Settings(**{**asdict(self), name: _parsed(name, value)})
        settings.check()
        return settings

    def restored(self, saved: dict[str, object], *, given: frozenset[str]) -> Settings:
        """Return these settings with those `saved` that were not `given` anew; raises OptionError if they are wrong."""
        known = {name: saved[name] for name in NAMES if name in saved and name not in given}
        for name, value in known.items():
            if not _fits(name, value):
                raise OptionError(f"the saved settings cannot be used: {name} is {shown(value)}")
        try:
            settings = Settings(**{**asdict(self), **known})
            settings.check()
        except TypeError as error:
            raise OptionError(f"the saved settings cannot be used: {error}") from error
        return settings

    def lines(self) -> list[str]:
        """Return a line for each setting, as /set takes it."""
        return [f"{name} {_text(name, value)}".rstrip() for name, value in asdict(self).items()]

    def short(self) -> str:
        """Return the sampling in a few words."""
        if self.temperature == 0:
            return "greedy"
        parts = [f"T {self.temperature:g}"]
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        parts += [f"min-p {self.min_p:g}"] if self.min_p else []
        return " ".join(parts)


NAMES = tuple(field.name for field in fields(Settings))


def _fits(name: str, value: object) -> bool:
    """Whether a saved `value` has the type of the setting `name`."""
    if value is None:
        return name in ("seed", "logit_bias", "dry_sequence_breaker")
    if name in ("stop", "logit_bias", "dry_sequence_breaker"):
        return isinstance(value, list) and all(isinstance(text, str) for text in value)
    kind = int if name == "seed" else type(getattr(Settings(), name))
    return type(value) is kind or (kind is float and type(value) is int)


def _parsed(name: str, value: str) -> object:
    default = getattr(Settings(), name)
    if name in ("stop", "dry_sequence_breaker"):
        return [value] if value else []
    if name == "logit_bias":
        return value.split()
    if name == "seed" and value in ("", "random"):
        return None
    if isinstance(default, bool):
        if value.lower() not in _SWITCHES:
            raise OptionError(f"{name} is {shown(value)}; it must be on or off")
        return _SWITCHES[value.lower()]
    if isinstance(default, str):
        return value
    kind = float if isinstance(default, float) else int
    try:
        return kind(value)
    except ValueError:
        wanted = "a number" if kind is float else "a whole number"
        raise OptionError(f"{name} is {shown(value)}; it must be {wanted}") from None


def _text(name: str, value: object) -> str:
    if value is None:
        return "random" if name == "seed" else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(repr, value))
    return str(value)

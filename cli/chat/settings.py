"""What can be set in a chat while it runs, and is saved with it: sampling, limits, and how answers are shown."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from mistral_mlx.cli.options.answer import AnswerKnobs, from_plain
from mistral_mlx.cli.terminal.thoughts import SHOW
from mistral_mlx.errors import OptionError, shown
from mistral_mlx.sampling.knobs import Knob, knob, knobs

if TYPE_CHECKING:
    from mistral_mlx.sampling.sampler import Sampler

_SWITCHES = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


@dataclass(frozen=True)
class ChatOptions(AnswerKnobs):
    """The settings of a chat. Raises OptionError if a value is out of range."""

    on_overflow: str = knob("drop-turns", choices=("drop-turns", "stop"))
    stats: bool = knob(False)
    plain: bool = knob(False)
    reasoning: str = knob("show", choices=SHOW)

    def sampler(self) -> "Sampler":
        """Return a new sampler of these settings."""
        from mistral_mlx.sampling.sampler import Sampler

        return Sampler(self)

    def changed(self, key: str, value: str) -> "ChatOptions":
        """Return these settings with `key` set to what the text `value` means. Raises OptionError."""
        name = key.replace("-", "_")
        if name not in NAMES:
            raise OptionError(f"there is no setting {shown(key)}; there are {', '.join(NAMES)}")
        plain = _parsed(knobs(ChatOptions)[name], value)
        return replace(self, **from_plain(ChatOptions, {name: plain}))

    def restored(self, saved: dict[str, object], *, given: frozenset[str]) -> "ChatOptions":
        """Return these settings with those `saved` that were not `given` anew; raises OptionError if they are wrong."""
        known = {key: saved[key] for key in NAMES if key in saved and key not in given}
        try:
            return replace(self, **from_plain(ChatOptions, known))
        except OptionError as error:
            raise OptionError(f"the saved settings cannot be used: {error}") from error

    def as_saved(self) -> dict[str, Any]:
        """Return the settings as a saved session keeps them; the opposite of `restored`."""
        return {key: option.to_plain(getattr(self, option.name)) for key, option in knobs(ChatOptions).items()}

    def lines(self) -> list[str]:
        """Return a line for each setting, as /set takes it."""
        return [f"{key} {_text(key, value)}".rstrip() for key, value in self.as_saved().items()]

    def short(self) -> str:
        """Return the sampling in a few words."""
        if self.temperature == 0:
            return "greedy"
        parts = [f"T {self.temperature:g}"]
        parts += [f"top-p {self.top_p:g}"] if self.top_p < 1 else []
        parts += [f"top-k {self.top_k}"] if self.top_k else []
        parts += [f"min-p {self.min_p:g}"] if self.min_p else []
        return " ".join(parts)


NAMES = tuple(knobs(ChatOptions))


def _parsed(option: Knob, text: str) -> object:
    """Return the plain value of a text after /set. Raises OptionError."""
    if option.kind is list:
        is_biases = option.key == "logit_bias"  # which have no spaces
        return text.split() if is_biases else [text] if text else []
    if option.optional and text in ("", "random"):
        return None
    if option.kind is bool:
        if text.lower() not in _SWITCHES:
            raise OptionError(f"{option.key} is {shown(text)}; it must be on or off")
        return _SWITCHES[text.lower()]
    try:
        return option.kind(text)
    except ValueError:
        raise OptionError(f"{option.key} is {shown(text)}; it must be {option.expected}") from None


def _text(key: str, value: object) -> str:
    if value is None:
        return "random" if key == "seed" else ""
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(repr, value))
    return str(value)

"""What can be set in a chat while it runs, and is saved with it: sampling, limits, and how answers are shown."""

import difflib
import shlex
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
        """Return these settings with `key` set to what the text `value` means, "-" its default. Raises OptionError."""
        name = name_of(key)
        if value == "-":
            return replace(
                self, **{knobs(ChatOptions)[name].name: getattr(ChatOptions(), knobs(ChatOptions)[name].name)}
            )
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

    def rows(self, *, changed: bool = False) -> list[tuple[str, str]]:
        """Return (name, value) of each setting, as /set takes them; `changed`: only of those that are no default."""
        defaults = ChatOptions().as_saved()
        saved = self.as_saved().items()
        return [(key, _text(key, value)) for key, value in saved if not changed or value != defaults[key]]

    def line(self, key: str) -> str:
        """Return the name and the value of one setting. Raises OptionError if there is none of this name."""
        return " ".join(next(row for row in self.rows() if row[0] == name_of(key)))

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


VALUES = {
    key: option.choices or (("on", "off") if option.kind is bool else ()) for key, option in knobs(ChatOptions).items()
}


def name_of(key: str) -> str:
    """Return the name of the setting `key`, which may be spelled with dashes. Raises OptionError if there is none."""
    if (name := key.replace("-", "_")) not in NAMES:
        near = difflib.get_close_matches(name, NAMES, n=1)
        what = f"did you mean {near[0]}?" if near else f"there are {', '.join(NAMES)}"
        raise OptionError(f"there is no setting {shown(key)}; {what}")
    return name


def _parsed(option: Knob, text: str) -> object:
    """Return the plain value of a text after /set. Raises OptionError."""
    if option.kind is list:
        is_biases = option.key == "logit_bias"  # which have no spaces
        return text.split() if is_biases else _texts(text)
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


def _texts(text: str) -> list[str]:
    """Return the texts between quotes, or the whole as one if it does not begin with a quote."""
    try:
        return shlex.split(text) if text[:1] in ("'", '"') else [text]
    except ValueError as error:
        raise OptionError(f"{shown(text)} cannot be split into texts: {error}") from error


def _text(key: str, value: object) -> str:
    if value in (None, "", []):
        return "random" if key == "seed" else "none"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, list):
        return " ".join(map(repr, value))
    return str(value)

"""The errors that input can cause, and the phrases their messages are made of.

    MistralMLXError
    ├── ModelError           a model folder cannot be used
    │   ├── ConfigError      config.json: missing, malformed, or with a feature that we do not support
    │   ├── CheckpointError  weights: missing, truncated, of another shape or type
    │   └── TokenizerError   tokenizer files or chat template
    ├── OptionError          a value from the caller is out of range
    │   └── ConstraintError  an answer cannot go on as its schema, expression or grammar wants it
    ├── ContextError         the input does not fit the model's context
    ├── ConversionError      a conversion could not finish; nothing was left behind
    ├── GroupError           processes that share a model: one is lost, or they do not fit together
    └── SessionError         a saved session is damaged, or is another model's
        └── SaveError        a session cannot be written

Every message is one or two sentences: what is wrong, the value seen, what to do. Text from a model folder is
untrusted and enters a message only through :func:`shown`.
"""

__all__ = [
    "CheckpointError",
    "ConfigError",
    "ConstraintError",
    "ContextError",
    "ConversionError",
    "GroupError",
    "MistralMLXError",
    "ModelError",
    "OptionError",
    "SaveError",
    "SessionError",
    "TokenizerError",
    "counted",
    "either",
    "shown",
]


class MistralMLXError(Exception):
    """The base class of all errors that input can cause."""


class ModelError(MistralMLXError):
    """A model folder cannot be used."""


class ConfigError(ModelError):
    """config.json is missing, malformed, or has a feature that we do not support."""


class CheckpointError(ModelError):
    """Weights are missing, truncated, or have another shape or type than the config implies."""


class TokenizerError(ModelError):
    """Tokenizer files or the chat template cannot be used."""


class OptionError(MistralMLXError):
    """A value given by the caller is out of range."""


class ConstraintError(OptionError):
    """An answer cannot go on as its schema, expression or grammar wants it."""


class ContextError(MistralMLXError):
    """The input does not fit the model's context; `what` says so without the `remedy`."""

    def __init__(self, what: str, remedy: str = "shorten the input") -> None:
        super().__init__(f"{what}; {remedy}")
        self.what = what


class ConversionError(MistralMLXError):
    """A conversion could not finish; the target is as it was before."""


class GroupError(MistralMLXError):
    """Processes that share a model cannot go on: one of them is lost, or they do not fit together.

    `is_known` says that all of them know it, so that one has to tell it.
    """

    def __init__(self, what: str, *, is_known: bool = False) -> None:
        super().__init__(what)
        self.is_known = is_known


class SessionError(MistralMLXError):
    """A saved session is damaged, or was saved with another model."""


class SaveError(SessionError):
    """A session cannot be written; what was on the disk is unchanged."""


def shown(value: object, *, limit: int = 80) -> str:
    """Return `value` as a short text without control characters of a terminal."""
    text = value if isinstance(value, str) else repr(value)
    short = text if len(text) <= limit else text[:limit] + "…"
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in short)


def counted(n: int, noun: str) -> str:
    """Return `n` and `noun`, in the plural unless `n` is 1: "1 line", "2,000 lines"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


def either(numbers: tuple[int, ...]) -> str:
    """Return `numbers` in order and in words: 2, 4 or 8."""
    *others, last = (str(n) for n in sorted(numbers))
    return f"{', '.join(others)} or {last}" if others else last

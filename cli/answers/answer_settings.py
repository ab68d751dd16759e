"""Settings of an answer that come from a file (a template, a line of a batch) instead of the command line."""

from collections.abc import Mapping
from typing import get_args, get_type_hints

from mistral_mlx.errors import OptionError, shown
from mistral_mlx.sampling.sampler import Sampler

EXPECTED = {float: "a number", int: "a whole number", str: "a text", list: "a list of texts"}


def setting_types() -> dict[str, type]:
    """Return what kind of value each setting has: those of the sampler, the limit, and where an answer ends."""
    hints = get_type_hints(Sampler.__init__)
    kinds = {name: set(get_args(hint) or (hint,)) & set(EXPECTED) for name, hint in hints.items() if name != "return"}
    return {name: kind.pop() for name, kind in kinds.items() if kind} | {"max_tokens": int, "stop": list}


def checked_settings(values: Mapping[str, object], place: str) -> dict[str, object]:
    """Return `values`, numbers in the right type. Raises OptionError, naming `place`, for a wrong one."""
    types = setting_types()
    for name, value in values.items():
        if name not in types:
            raise OptionError(f"{place} sets {shown(name)}, which is none of {', '.join(sorted(types))}")
        if not _is(value, types[name]):
            raise OptionError(f"{name} of {place} is {shown(value)}; give {EXPECTED[types[name]]}")
    return {name: float(str(value)) if types[name] is float else value for name, value in values.items()}


def _is(value: object, kind: type) -> bool:
    if kind is list:
        return isinstance(value, list) and all(isinstance(text, str) for text in value)
    allowed = (int, float) if kind is float else kind
    return isinstance(value, allowed) and not isinstance(value, bool)

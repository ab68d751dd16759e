"""Takes the values of parameters that need no conversion past typer, which imports pydantic to convert one.

That import takes as long as reading a tokenizer. What is no plain value is left to typer, with its messages.
"""

import re
from collections.abc import Iterable, Iterator
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

WRITTEN = {int: re.compile(r"-?[0-9]{1,18}"), float: re.compile(r"-?[0-9]{1,15}(\.[0-9]{1,15})?")}
ODD = object()  # in place of a value that is not plain


def kinds_of(command: Any) -> Iterator[tuple[Any, type]]:
    """Yield the parameters of a command that typer has built, with the type of a value (of one, if there are more)."""
    hints = get_type_hints(command.callback) if command.callback else {}
    for parameter in command.params:
        if parameter.name in hints:
            kind = hints[parameter.name]
            if get_origin(kind) in (Union, UnionType):
                kind = next(part for part in get_args(kind) if part is not type(None))
            yield parameter, get_args(kind)[0] if get_origin(kind) is list else kind


def take_plain_values(command: Any, parameters: Iterable[Any]) -> None:
    """Let the parameters of a command that typer has built take plain values of their types as they are."""
    new = [parameter for parameter in parameters if "process_value" not in vars(parameter)]
    kinds = {parameter.name: kind for parameter, kind in kinds_of(command)} if new else {}
    for parameter in new:
        _take_plain_values(parameter, kinds.get(parameter.name))


def _take_plain_values(parameter: Any, kind: Any) -> None:
    convert = parameter.process_value
    is_list = parameter.multiple or parameter.nargs == -1

    def process(ctx: Any, value: Any) -> Any:
        found = _plain_list(value, kind) if is_list else _plain(value, kind)
        if found is ODD or (value is None and parameter.required):
            return convert(ctx, value)
        return found if parameter.callback is None else parameter.callback(ctx, parameter, found)

    parameter.process_value = process


def _plain_list(values: object, kind: Any) -> object:
    """Return a list of values of `kind`, or ODD; None is an empty one."""
    if not isinstance(values, list | tuple | None):
        return ODD
    found = [_plain(value, kind) for value in values or ()]
    return ODD if ODD in found else found


def _plain(value: object, kind: Any) -> object:
    """Return a value of `kind`, or ODD; None is no value."""
    if value is None or type(value) is kind:
        return value
    is_written = isinstance(value, str) and kind in WRITTEN and WRITTEN[kind].fullmatch(value)
    return kind(value) if is_written else ODD

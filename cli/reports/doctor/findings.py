"""What one check of ``doctor`` has found: lines for people, and facts by name."""

import os
import re
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """How good a line is."""

    OK = "ok"
    NOTE = "note"  # unusual, but nothing fails for it
    FAULT = "fault"  # something does not work


class Line(NamedTuple):
    """One finding; the advice of a fault is empty if its text says what to do."""

    state: State
    text: str
    advice: str = ""


class Findings:
    """Collects what a check finds, so that a check that fails half-way leaves the rest."""

    def __init__(self, about: str) -> None:
        self.about = about
        self.lines: list[Line] = []
        self.facts: dict[str, object] = {}

    def ok(self, text: str) -> None:
        """Say that something is as it should be."""
        self.lines.append(Line(State.OK, without_home(text)))

    def note(self, text: str) -> None:
        """Say that something is unusual."""
        self.lines.append(Line(State.NOTE, without_home(text)))

    def fault(self, text: str, advice: str = "") -> None:
        """Say that something does not work, and what to do."""
        self.lines.append(Line(State.FAULT, without_home(text), without_home(advice)))

    @property
    def n_faults(self) -> int:
        """How many lines are faults."""
        return sum(line.state is State.FAULT for line in self.lines)

    def record(self) -> dict[str, object]:
        """Return everything as JSON has it."""
        return {"lines": [line._asdict() for line in self.lines], "facts": _without_home(self.facts)}


def without_home(text: str) -> str:
    """Return `text` with ~ for the user's own folder, whose name need not be in a public report."""
    home = os.path.expanduser("~")
    for folder in (home, os.path.realpath(home)):
        if len(folder) > 1:
            text = re.sub(re.escape(folder) + r"(?![\w.-])", "~", text)
    return text


def _without_home(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_home(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_home(item) for item in value]
    return without_home(value) if isinstance(value, str) else value

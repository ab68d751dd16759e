"""Mistral's tokenizer versions: how a vocabulary's is told by its control tokens, and the settings that v15 writes.

A version names a chat format. v7, v11 and v13 write plain chats alike; they differ in how they write tools.
"""

from collections.abc import Iterable
from dataclasses import dataclass

VERSIONS = ("v1", "v2", "v3", "v7", "v11", "v13", "v15")
INSTRUCT_TOKENS = ("[INST]", "[/INST]")
SYSTEM_TOKENS = ("[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")
CALL_TOKENS = ("[ARGS]", "[CALL_ID]")
THINK_TOKENS = BEGIN_THINK, END_THINK = ("[THINK]", "[/THINK]")
SETTINGS_TOKENS = ("[MODEL_SETTINGS]", "[/MODEL_SETTINGS]")
SCHEMA_SETTING = "json_schema"
TOOL_CALLS = "[TOOL_CALLS]"
# The tokens that a format cannot do without.
NEEDED = {
    "v1": (),
    "v2": INSTRUCT_TOKENS,
    "v3": INSTRUCT_TOKENS,
    "v7": INSTRUCT_TOKENS + SYSTEM_TOKENS,
    "v11": INSTRUCT_TOKENS + SYSTEM_TOKENS + CALL_TOKENS,
    "v13": INSTRUCT_TOKENS + SYSTEM_TOKENS + CALL_TOKENS[:1],
    "v15": INSTRUCT_TOKENS + SYSTEM_TOKENS + CALL_TOKENS[:1] + SETTINGS_TOKENS,
}


@dataclass(frozen=True)
class Efforts:
    """How much a model can be told to reason, and what it is told if nobody says."""

    values: tuple[str, ...] = ("none", "high")
    default: str = "none"


def number(version: str) -> int:
    """Return the number of a version, by which versions compare."""
    return int(version[1:])


def instruct_version(control: Iterable[str]) -> str | None:
    """Return the version that the control tokens of a vocabulary imply, or None."""
    texts = set(control)
    if not texts.issuperset(INSTRUCT_TOKENS):
        return None
    if texts.issuperset(SYSTEM_TOKENS):
        if texts.issuperset(SETTINGS_TOKENS):
            return "v15"
        if texts.issuperset(THINK_TOKENS):
            return "v13"
        return "v11" if texts.issuperset(CALL_TOKENS) else "v7"
    return "v3" if texts & {"[PREFIX]", "[IMG]"} else "v2"

"""Changes valid files in many ways, so that they become invalid."""

import copy
import json
import struct
from random import Random

NUMBERS = [
    0,
    1,
    -1,
    2,
    3,
    7,
    8,
    31,
    32,
    64,
    255,
    2**16,
    2**31 - 1,
    2**31,
    2**32,
    2**40,
    2**63 - 1,
    2**63,
    2**64,
    10**30,
]
FLOATS = [0.0, -0.0, 0.5, 1.0, 32.0, 1e-300, 1e38, 1e39, 1e300, -1.5]
TEXTS = [
    "",
    " ",
    "a",
    "▁",
    "\x1b[2J",
    "\0",
    "\ud800",
    "é",
    "\U0001f600",
    "../x",
    "/etc/passwd",
    "F32",
    "<s>",
    "x" * 300,
]
PIECES = ["NaN", "Infinity", "1e999", "[" * 80, "]", "{", "}", '"', ",", ":", "\\u0000", "\\ud83d", "null", "9" * 120]


def mutated(value: object, rng: Random) -> object:
    """Return a copy of a JSON value with one to three changes somewhere in it."""
    value = copy.deepcopy(value)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        value = _changed(value, rng)
    return value


def dumped(value: object, rng: Random) -> bytes:
    """Return a JSON text, now and then damaged as a text too."""
    text = json.dumps(value, ensure_ascii=rng.random() < 0.9).encode("utf-8", "surrogatepass")
    if rng.random() < 0.1:
        at = rng.randrange(len(text) + 1)
        return text[:at] + rng.choice(PIECES).encode() + text[at + rng.randrange(3) :]
    return damaged(text, rng) if rng.random() < 0.05 else text


def damaged(content: bytes, rng: Random, *, whole: bool = False) -> bytes:
    """Return bytes with a few flipped, overwritten, left out or doubled; `whole` keeps the length."""
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        at = rng.randrange(len(changed) + 1)
        match rng.randrange(3 if whole else 7):
            case 0 if at < len(changed):
                changed[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(changed):
                changed[at] = rng.choice((0, 1, 9, 32, 127, 128, 255))
            case 2:
                form = rng.choice(("<I", "<Q"))
                number = rng.choice(NUMBERS) % (1 << 8 * struct.calcsize(form))
                packed = struct.pack(form, number)[: len(changed) - at]
                changed[at : at + len(packed)] = packed
            case 3:
                del changed[at : at + rng.choice((1, 4, 8, 100))]
            case 4:
                changed[at:at] = rng.randbytes(rng.choice((1, 4, 8)))
            case 5:
                changed[at:at] = changed[at : at + rng.choice((4, 16, 64))]
            case 6:
                del changed[rng.choice((at, len(changed) - 1)) :]
    return bytes(changed)


def odd_value(rng: Random) -> object:
    """Return something that is seldom what was asked for."""
    choices = [rng.choice(NUMBERS), -rng.choice(NUMBERS), rng.choice(FLOATS), rng.choice(TEXTS), None, True, False]
    return rng.choice([*choices, [], {}, [rng.choice(NUMBERS)], {rng.choice(TEXTS): rng.choice(NUMBERS)}])


def _changed(value: object, rng: Random) -> object:
    """Return `value` with one change, as likely near the root as deep inside."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.02:
        return _replaced(value, rng)
    key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
    inner = value[key]
    if isinstance(inner, dict | list) and inner and rng.random() < 0.75:
        value[key] = _changed(inner, rng)
        return value
    match rng.randrange(6):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[rng.choice([rng.choice(TEXTS), *map(str, value)])] = value[key]
        case 1:
            value.insert(key, copy.deepcopy(inner))
        case 2:
            other = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
            value[key], value[other] = value[other], value[key]
        case _:
            value[key] = _replaced(inner, rng)
    return value


def _replaced(value: object, rng: Random) -> object:
    """Return something of the same type that is a little off, or something else altogether."""
    if type(value) is int and rng.random() < 0.5:
        return value + rng.choice((-1, 1, 8, -value - 1, value))
    if isinstance(value, str) and rng.random() < 0.3:
        at = rng.randrange(len(value) + 1)
        return value[:at] + rng.choice(TEXTS) + value[at + rng.randrange(2) :]
    return odd_value(rng)

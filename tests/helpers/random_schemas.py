"""Random JSON Schemas whose keywords meet in odd ways, and in odd order."""

from collections.abc import Callable
from random import Random

KEYS = ["a", "b", "ab", "a b", "é", 'a"b', "x-1", "\n", "\\", "", "long_name"]
PATTERNS = [
    "^a", "b$", "^[a-z]+$", "a|b", "^.{1,3}$", r"\d", r"^\w+$", r"^\S+$", "[^a]", "^(foo|bar)$", "^x-", "^[A-Z]{2}$",
    r"\s", "^$", r"^[^\n]*$", r"^\W+$", r"^\D$", "(^a|b$)", "^a.c$", r"^[\w.-]+@[\w-]+\.[a-z]{2,}$", "", "[\"\\\\]",
]  # fmt: skip
VALUES: list[object] = [
    None, True, False, 0, 1, -1, 1.0, 1.5, 0.1, -0.0, 1e10, 1e-7, 10**20, "", "a", "ab", "é", 'a"b', "\n", "\u0001",
    "\x7f", "😀", "a\\", "/", [], {}, [1], [1, "a"], {"a": 1}, {"b": [], "a": None}, [True], {"": 0}, [[]],
]  # fmt: skip
NUMBERS = [
    0, 1, -1, 2, 3, 5, 7, 10, 100, 0.5, 1.5, -2.5, 0.1, 0.01, 1e-3, 99.99, 1e15, -1e15, 2**53, 2**53 + 1, 1e100, 1e-300,
    0.3, -0.1, 9007199254740993.0, 123456789.125, 1e22, 5e-324,
]  # fmt: skip
STEPS = [1, 2, 3, 5, 0.5, 0.25, 0.1, 0.01, 10, 1.5, 7, 2.0, 0.125, 100, 16]
FORMATS = [
    "date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "uri-reference",
    "json-pointer", "idn-email", "idn-hostname", "iri", "uuid4", "relative-json-pointer", "password",
]  # fmt: skip
NAMES: list[object] = [{"maxLength": 2}, {"enum": ["a", "b", "c"]}, {"minLength": 1}, False, {"type": "integer"}]
NOTS: list[object] = [{}, {"type": "string"}, {"required": ["a"]}, False, {"type": ["object", "null"]}]
KINDS = ["null", "boolean", "number", "integer", "string", "array", "object"]


def random_schema(rng: Random) -> dict[str, object]:
    """Return a schema with definitions of which some are used."""
    return {**_object(rng, rng.choice((1, 2, 2, 3))), "$defs": {"d": _schema(rng, 1), "e": _schema(rng, 2)}}


def _schema(rng: Random, depth: int) -> object:
    if depth > 0 and rng.random() > 0.04:
        return _object(rng, depth)
    simple: list[object] = [
        True,
        {},
        {"type": rng.choice(KINDS)},
        {"const": rng.choice(VALUES)},
        {"enum": rng.sample(VALUES, rng.randrange(1, 5))},
    ]
    return rng.choice([*simple, *simple, {"$ref": rng.choice(("#", "#/$defs/d", "#/$defs/e"))}, False])


def _object(rng: Random, depth: int) -> dict[str, object]:
    schema: dict[str, object] = {}
    kinds = rng.sample(KINDS, rng.choice((1, 1, 1, 1, 2, 3)))
    if rng.random() < 0.85:
        schema["type"] = kinds[0] if len(kinds) == 1 else kinds
    else:
        kinds = KINDS
    for kind, make in (("number", _number), ("integer", _number), ("string", _string)):
        if kind in kinds:
            schema |= make(rng)
    for kind, make_deep in (("array", _array), ("object", _members)):
        if kind in kinds:
            schema |= make_deep(rng, depth)
    schema |= _combined(rng, depth)
    keys = list(schema)
    if rng.random() < 0.3:
        rng.shuffle(keys)
    return {key: schema[key] for key in keys}


def _some(rng: Random, choices: dict[str, tuple[float, Callable[[], object]]]) -> dict[str, object]:
    """Return the keys that their chances let through, with what their functions return."""
    return {key: make() for key, (chance, make) in choices.items() if rng.random() < chance}


def _number(rng: Random) -> dict[str, object]:
    def number() -> float:
        return rng.choice([*NUMBERS, rng.randrange(-50, 50), rng.uniform(-5, 5), rng.uniform(-1e6, 1e6)])

    ends = {"minimum": 0.4, "maximum": 0.4, "exclusiveMinimum": 0.2, "exclusiveMaximum": 0.2}
    steps = {"multipleOf": (0.2, lambda: rng.choice(STEPS))}
    return _some(rng, {**{key: (chance, number) for key, chance in ends.items()}, **steps})


def _string(rng: Random) -> dict[str, object]:
    return _some(
        rng,
        {
            "minLength": (0.3, lambda: rng.randrange(4)),
            "maxLength": (0.4, lambda: rng.randrange(8)),
            "pattern": (0.35, lambda: rng.choice(PATTERNS)),
            "format": (0.2, lambda: rng.choice(FORMATS)),
        },
    )


def _array(rng: Random, depth: int) -> dict[str, object]:
    return _some(
        rng,
        {
            "items": (0.6, lambda: _schema(rng, depth - 1)),
            "prefixItems": (0.3, lambda: _schemas(rng, depth)),
            "minItems": (0.3, lambda: rng.randrange(4)),
            "maxItems": (0.5, lambda: rng.randrange(5)),
            "uniqueItems": (0.15, lambda: True),
        },
    )


def _members(rng: Random, depth: int) -> dict[str, object]:
    def keys(most: int) -> list[str]:
        return rng.sample(KEYS, rng.randrange(1, most))

    return _some(
        rng,
        {
            "properties": (0.8, lambda: {key: _schema(rng, depth - 1) for key in keys(5)}),
            "required": (0.5, lambda: keys(3)),
            "additionalProperties": (0.5, lambda: rng.random() > 0.6 and _schema(rng, depth - 1)),
            "patternProperties": (0.2, lambda: {p: _schema(rng, depth - 1) for p in rng.sample(PATTERNS, 2)}),
            "minProperties": (0.2, lambda: rng.randrange(4)),
            "maxProperties": (0.2, lambda: rng.randrange(5)),
            "propertyNames": (0.12, lambda: rng.choice([*NAMES, {"pattern": rng.choice(PATTERNS)}])),
            "dependentRequired": (0.1, lambda: {rng.choice(KEYS): keys(3)}),
            "dependentSchemas": (0.06, lambda: {rng.choice(KEYS): _schema(rng, depth - 1)}),
        },
    )


def _combined(rng: Random, depth: int) -> dict[str, object]:
    return _some(
        rng,
        {
            "anyOf": (0.1, lambda: _schemas(rng, depth)),
            "allOf": (0.1, lambda: _schemas(rng, depth)),
            "oneOf": (0.08, lambda: _schemas(rng, depth)),
            "not": (0.05, lambda: rng.choice(NOTS)),
            "enum": (0.04, lambda: rng.sample(VALUES, rng.randrange(1, 6))),
            "$ref": (0.06, lambda: rng.choice(("#", "#/$defs/d", "#/$defs/e"))),
        },
    )


def _schemas(rng: Random, depth: int) -> list[object]:
    return [_schema(rng, depth - 1) for _ in range(rng.randrange(1, 4))]

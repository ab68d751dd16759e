"""Cases for JSON Schemas: random ones, damaged ones, and ones that are large, deep or circular on purpose."""

import contextlib
import json
from pathlib import Path
from random import Random

import numpy as np
from fuzz.mutations import FLOATS, NUMBERS, TEXTS, mutated
from fuzz.reader import Reader
from helpers.random_schemas import random_schema
from jsonschema import Draft202012Validator
from llguidance import LLMatcher, LLTokenizer, TokenizerWrapper

from mistral_mlx.constraint.limits import SCHEMA_LIMITS
from mistral_mlx.constraint.schema import schema_grammar

N_TOKENS = 131_072
STEPS = 40  # of an answer
SIZES = (1, 2, 3, 10, 30, 100, 1000, 5000, 20_000)
PATTERNS = [
    "(a{1000}){1000}", "a{1000}{1000}", "(" * 10_000 + ")" * 10_000, "(a+)+$", "(x+x+)+y", "^(a|a?)+$", "a.{40}b",
    "(a|b)*a(a|b){30}", "[^\\u0000-\\uffff]", "\\", "[", "(?=a)b", "a{,5}", "\\p{L}", "^(.*){50}$", "a{0,900}b{0,900}",
    "(?i)a", "a{99999999999}", "[a-z]{1,900}c", "^((a?){9}){9}$", ".{50}a.{50}", "x" * 3000, "|" * 500, "$^", "\\1(a)",
]  # fmt: skip


class Schemas(Reader):
    """Schemas, the grammars made of them, and the beginnings of answers with a large vocabulary."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.tokenizer = LLTokenizer(TokenizerWrapper(_Words()), n_vocab=N_TOKENS, eos_token=[0])
        self.mask = np.empty(N_TOKENS // 32, np.int32)
        self.makers = [v for name, v in vars(Schemas).items() if name.startswith("_of_")]

    def __call__(self, rng: Random) -> None:
        form = rng.random()
        schema: object = random_schema(rng)
        if form < 0.5:
            schema = mutated(schema, rng)
        elif form < 0.8:
            schema = rng.choice(self.makers)(self, rng)
        grammar = schema_grammar(schema)
        text = self._answer(grammar, rng)
        if text is not None:
            value = json.loads(text)
            json.dumps(value, allow_nan=False)
            if form >= 0.5:  # a damaged schema may be none for the judge
                with contextlib.suppress(RecursionError):  # of the judge, for a long chain of references
                    Draft202012Validator(schema).validate(value)

    def _answer(self, grammar: str, rng: Random) -> str | None:
        """Return an answer, or None for one that is longer than a few tokens."""
        matcher = LLMatcher(self.tokenizer, grammar, log_level=0, limits=SCHEMA_LIMITS)
        text = b""
        for _ in range(STEPS):
            assert not matcher.is_error(), matcher.get_error()[:200]
            matcher.unsafe_compute_mask_ptr(self.mask.ctypes.data, self.mask.nbytes)
            allowed = np.flatnonzero(np.unpackbits(self.mask.view(np.uint8), bitorder="little"))
            if matcher.is_stopped() or allowed[0] == 0:
                assert not matcher.is_error(), matcher.get_error()[:200]
                return text.decode()
            token = int(allowed[rng.randrange(len(allowed))])
            assert matcher.consume_token(token), (text, token)
            text += self.tokenizer.decode_bytes([token])
        return None

    def _of_depth(self, rng: Random) -> object:
        key = rng.choice(
            ("items", "not", "additionalProperties", "allOf", "anyOf", "properties", "const", "enum", "$defs")
        )
        schema: object = rng.choice((True, {}, {"type": "string"}))
        for _ in range(rng.choice(SIZES)):
            listed = key in ("allOf", "anyOf", "enum")
            schema = {key: [schema] if listed else {"a": schema} if key in ("properties", "$defs") else schema}
        return schema

    def _of_doubling(self, rng: Random) -> object:
        schema: object = {"type": rng.choice(("string", "object"))}
        key = rng.choice(("allOf", "anyOf", "oneOf", "prefixItems", "enum"))
        for i in range(rng.choice((5, 20, 60))):
            schema = {key: [schema, schema]} if rng.random() < 0.8 else {"properties": {str(i): schema, "b": schema}}
        return schema

    def _of_circles(self, rng: Random) -> object:
        n = rng.choice((1, 2, 10, 100, 1000, 3000))
        forms = (
            lambda target: {"$ref": target},
            lambda target: {"allOf": [{"$ref": target}]},
            lambda target: {"anyOf": [{"$ref": target}, {"type": "null"}]},
            lambda target: {"properties": {"a": {"$ref": target}}, "required": ["a"]},
            lambda target: {"type": "array", "items": {"$ref": target}},
            lambda target: {"oneOf": [{"type": "object", "properties": {"b": {"$ref": target}}}, {"type": "string"}]},
        )
        make = rng.choice(forms)
        definitions = {f"d{i}": make(f"#/$defs/d{(i + 1) % n}") for i in range(n)}
        if rng.random() < 0.3:
            definitions[f"d{n - 1}"] = {"type": "string"}
        schema: dict[str, object] = {"$ref": "#/$defs/d0", "$defs": definitions}
        if rng.random() < 0.1:
            schema["allOf"] = [schema]
        return schema

    def _of_products(self, rng: Random) -> object:
        n, m = rng.choice((2, 5, 12, 40)), rng.choice((2, 5, 12, 40))
        branch = rng.choice(("anyOf", "oneOf"))
        kind = rng.choice(("const", "required", "properties"))
        leaf = {"const": lambda i: i, "required": lambda i: [f"k{i}"], "properties": lambda i: {f"k{i}": {"const": i}}}[
            kind
        ]
        return {
            rng.choice(("allOf", branch)): [{branch: [{kind: leaf(i * m + j)} for j in range(m)]} for i in range(n)]
        }

    def _of_width(self, rng: Random) -> object:
        n = rng.choice(SIZES)
        names = [f"name {i}" for i in range(n)]
        match rng.randrange(8):
            case 0:
                return {
                    "enum": rng.choice((names, list(range(n)), [{"a": i} for i in range(n)], [[i] for i in range(n)]))
                }
            case 1:
                properties = {name: {"type": "string"} for name in names}
                return {"type": "object", "properties": properties, "required": names[::2]}
            case 2:
                return {
                    "anyOf": [
                        {"type": "object", "properties": {"a": {"const": i}}, "required": ["a"]} for i in range(n)
                    ]
                }
            case 3:
                return {"oneOf": [{"const": name} for name in names]}
            case 4:
                return {"type": "object", "dependentRequired": {name: ["a"] for name in names}}
            case 5:
                return {
                    "type": "array",
                    "prefixItems": [{"type": "string"}] * n,
                    "minItems": rng.choice((0, n)),
                    "items": False,
                }
            case 6:
                return {"type": "object", "patternProperties": {f"^{name}": {"type": "string"} for name in names}}
        counts = {"minProperties": rng.choice((0, 1, n // 2)), "maxProperties": rng.choice((1, n // 2, n))}
        return {"type": "object", "properties": {name: {"type": "null"} for name in names}, **counts}

    def _of_numbers(self, rng: Random) -> object:
        numbers = [
            *NUMBERS,
            *FLOATS,
            10**9,
            10**400,
            float("nan"),
            float("inf"),
            -1,
            1.5,
            2.0,
            True,
            "3",
            None,
            65_000,
            3000,
        ]
        keys = (
            "minLength",
            "maxLength",
            "minItems",
            "maxItems",
            "minProperties",
            "maxProperties",
            "minimum",
            "maximum",
        )
        keys += ("exclusiveMinimum", "exclusiveMaximum", "multipleOf")
        kind = rng.choice(("string", "array", "object", "number", "integer"))
        return {"type": kind, **{rng.choice(keys): rng.choice(numbers) for _ in range(rng.randrange(1, 4))}}

    def _of_patterns(self, rng: Random) -> object:
        first, second = rng.choice(PATTERNS), rng.choice([*PATTERNS, "^[a-z]*$", "b"])
        match rng.randrange(5):
            case 0:
                return {"type": "string", "pattern": first}
            case 1:
                return {"type": "string", "allOf": [{"pattern": first}, {"pattern": second}]}
            case 2:
                return {
                    "type": "string",
                    "pattern": first,
                    "minLength": rng.choice((1, 100, 5000)),
                    "maxLength": 60_000,
                }
            case 3:
                return {"type": "object", "patternProperties": {first: True, second: {"type": "null"}}}
        return {
            "type": "object",
            "propertyNames": {"pattern": first},
            "additionalProperties": {"const": rng.choice(TEXTS)},
        }


class _Words:
    """A vocabulary of an end, all bytes and many short words."""

    def __init__(self) -> None:
        rng = Random(0)
        letters = [bytes([i]) for i in (*range(32, 127), 10)] + ["é".encode(), b"\xf0\x9f\x98\x80", b'":', b'",', b" a"]
        words = [b"".join(rng.choices(letters, k=rng.randrange(2, 9))) for _ in range(N_TOKENS - 257)]
        self.tokens = [b"</s>", *(bytes([i]) for i in range(256)), *words]
        self.eos_token_id = 0
        self.bos_token_id = None
        self.special_token_ids = [0]

    def __call__(self, text: bytes | str) -> list[int]:
        return [1 + byte for byte in (text if isinstance(text, bytes) else text.encode())]

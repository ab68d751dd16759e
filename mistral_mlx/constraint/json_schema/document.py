"""A schema as a document: its places, the draft it is written in, and what its references point to."""

import json
from dataclasses import dataclass
from urllib.parse import unquote

from mistral_mlx.errors import OptionError, shown

from .values import Keys, Value, interned, place_name

DRAFTS = {
    "https://json-schema.org/draft/2020-12/schema": 2020,
    "https://json-schema.org/draft/2019-09/schema": 2019,
    "http://json-schema.org/draft-07/schema": 7,
    "http://json-schema.org/draft-06/schema": 6,
    "http://json-schema.org/draft-04/schema": 4,
}
ANNOTATING = frozenset(
    "$schema $id $anchor $comment $defs definitions title description default examples example deprecated readOnly "
    "writeOnly contentEncoding contentMediaType contentSchema".split()
)
LISTS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")
MAPS = ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas")
SINGLES = ("items", "additionalProperties", "additionalItems", "propertyNames", "not", "if", "then", "else", "contains")


@dataclass(frozen=True, eq=False)
class Place:
    """A subschema: the keys that lead to it and its value. Places with equal values are equal."""

    keys: Keys
    value: Value
    made_of: object = None  # for a place that the schema does not have: tells it apart

    @property
    def identity(self) -> object:
        """Return what tells this place from others: its value, of which equal ones are the same object."""
        if self.made_of is not None:
            return self.made_of
        return id(self.value) if isinstance(self.value, dict | list) else repr(self.value)

    def __hash__(self) -> int:
        return hash(self.identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Place) and self.identity == other.identity

    def child(self, *keys: str | int) -> "Place":
        """Return the place that `keys` lead to from here."""
        value = self.value
        for key in keys:
            value = value[key]  # type: ignore[index]
        return Place((*self.keys, *keys), value, None if self.made_of is None else (self.made_of, *keys))

    def made(self, name: str, value: Value) -> "Place":
        """Return a place that the schema does not have; it follows from this one and its name."""
        return Place((*self.keys, name), value, (self.identity, name))

    def fault(self, words: str, advice: str) -> OptionError:
        """Return the error to raise for this place."""
        return OptionError(f"the schema {words} {place_name(self.keys)}; {advice}")


class Document:
    """The root of a schema with its draft and its named places. Raises OptionError for what cannot be resolved."""

    def __init__(self, root: Value) -> None:
        self.known: dict[object, Value] = {}
        self.root = Place((), interned(root, self.known))
        self.draft = self._draft()
        self.anchors: dict[str, Place] = {}
        self.places: list[Place] = []
        self._walk(self.root)

    def target(self, place: Place, reference: Value) -> Place:
        """Return the place that the `$ref` of `place` points to."""
        if not isinstance(reference, str) or not reference.startswith("#"):
            advice = "only references inside the schema are followed; put the other schema into $defs"
            raise place.fault(f"has the $ref {shown(json.dumps(reference))}", advice)
        fragment = unquote(reference[1:])
        if not fragment:
            return self.root
        found = self._pointed(fragment[1:]) if fragment.startswith("/") else self.anchors.get(fragment)
        if found is None:
            raise place.fault(f"has the $ref {shown(json.dumps(reference))}", "nothing is there; correct it")
        return found

    def followed(self, place: Place) -> Place:
        """Return the place that stands at the end of references which have nothing beside them."""
        start, seen = place, set[Place]()
        while isinstance(place.value, dict) and place.value.keys() - ANNOTATING == {"$ref"}:
            if place in seen:
                return start  # a circle, refused when it is taken apart
            seen.add(place)
            place = self.target(place, place.value["$ref"])
        return place

    def as_judged(self, place: Place) -> Place:
        """Return a place without the keywords that a judge passes over who keeps to an older draft."""
        value = place.value
        if self.draft >= 2019 or not isinstance(value, dict):
            return place
        unknown = {"dependentRequired", "dependentSchemas", *(("const", "propertyNames") if self.draft == 4 else ())}
        kept = {
            key: item for key, item in value.items() if key not in unknown and ("$ref" not in value or key == "$ref")
        }
        return place if kept == value else place.made("as judged", kept)

    def _draft(self) -> int:
        if not isinstance(self.root.value, dict) or "$schema" not in self.root.value:
            return 2020
        name = self.root.value["$schema"]
        draft = DRAFTS.get(name.rstrip("#")) if isinstance(name, str) else None
        if draft is None:
            raise self.root.fault(f"has the $schema {shown(json.dumps(name))}", f"give {next(iter(DRAFTS))}")
        return draft

    def _pointed(self, pointer: str) -> Place | None:
        place = self.root
        for part in pointer.split("/"):
            key = part.replace("~1", "/").replace("~0", "~")
            value = place.value
            if isinstance(value, dict) and key in value:
                place = place.child(key)
            elif isinstance(value, list) and key.isascii() and key.isdigit() and int(key[:9]) < len(value):
                place = place.child(int(key[:9]))
            else:
                return None
            self._check_base(place)
        return place

    def _walk(self, place: Place) -> None:
        """Note the anchors of a place and of those inside it."""
        value = place.value
        if not isinstance(value, dict):
            return
        self._check_base(place)
        self.places.append(place)
        anchor = value.get("$anchor")
        if isinstance(anchor, str) and self.draft >= 2019:
            if anchor in self.anchors:
                raise place.fault(f"has the $anchor {shown(anchor)} twice", "name each place once")
            self.anchors[anchor] = place
        for key, inside in value.items():
            if key in LISTS and isinstance(inside, list):
                for i in range(len(inside)):
                    self._walk(place.child(key, i))
            elif key in MAPS and isinstance(inside, dict):
                for name in inside:
                    self._walk(place.child(key, name))
            elif key in SINGLES:
                self._walk(place.child(key))

    def _check_base(self, place: Place) -> None:
        """Refuse what changes the meaning of the references inside a place, and options of the grammar's maker."""
        if not isinstance(place.value, dict):
            return
        if "x-guidance" in place.value:
            raise place.fault("has 'x-guidance'", "leave it out")
        for key in ("$id", "$schema", *(("id",) if self.draft == 4 else ())):
            if place.keys and isinstance(place.value.get(key), str):
                raise place.fault(f"has '{key}'", "leave it out; only the top of a schema can have it")

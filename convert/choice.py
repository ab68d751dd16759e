"""How each weight is to be packed, from what the user asked for: bits, recipes and rules; reads no checkpoint."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mistral_mlx.args import Packing
from mistral_mlx.errors import OptionError, shown

AFFINE_BITS = (2, 3, 4, 5, 6, 8)
AFFINE_GROUPS = (32, 64, 128)
FLOAT_MODES: dict[str, Packing] = {}
MODES = ("affine", *FLOAT_MODES)
DEFAULT_BITS, DEFAULT_GROUP_SIZE = 4, 64
# mlx-lm's names and its choice of modules (mlx_lm/convert.py): few bits, and more where they count.
RECIPES = {"mixed_2_6": (2, 6), "mixed_3_4": (3, 4), "mixed_3_6": (3, 6), "mixed_4_6": (4, 6)}
KEEP = "none"

LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Rule:
    """The packing of modules whose path matches; None keeps them as they are."""

    text: str
    pattern: re.Pattern[str]
    packing: Packing | None


@dataclass(frozen=True)
class Choice:
    """What was asked for; what is None is left to us."""

    bits: int | None = None
    group_size: int | None = None
    mode: str | None = None
    recipe: str | None = None
    rules: tuple[Rule, ...] = ()
    dequantize: bool = False  # nothing is packed

    def carries(self, path: str) -> bool:
        """Whether nothing was asked for the module at `path`, so that it may stay as it is packed already."""
        return self == Choice(rules=self.rules) and self.rule(path) is None

    def rule(self, path: str) -> Rule | None:
        """Return the rule for the module at `path`: the last one that matches."""
        return next((rule for rule in reversed(self.rules) if rule.pattern.search(path)), None)

    def of(self, path: str, columns: int, n_layers: int) -> tuple[Packing | None, str]:
        """Return how the module at `path` is packed whose rows have so many `columns`; if not, why."""
        if self.dequantize:
            return None, ""
        rule = self.rule(path)
        if rule is not None and rule.packing is None:
            return None, f"--rule {rule.text} keeps it"
        packing = rule.packing if rule is not None and rule.packing else self._usual(path, n_layers)
        if columns % packing.group_size == 0:
            return packing, ""
        if self.group_size is None and rule is None and packing.mode == "affine" and columns % min(AFFINE_GROUPS) == 0:
            return packing._replace(group_size=min(AFFINE_GROUPS)), ""
        return None, f"its {columns} columns are no multiple of the group size {packing.group_size}"

    def check_rules(self, paths: Sequence[str]) -> None:
        """Raise OptionError if a rule matches none of the modules at `paths`."""
        for rule in self.rules:
            if not any(rule.pattern.search(path) for path in paths):
                raise OptionError(f"rule {shown(rule.text)} matches no weight; they have names such as {paths[-1]}")

    def _usual(self, path: str, n_layers: int) -> Packing:
        if self.mode in FLOAT_MODES:
            return FLOAT_MODES[self.mode]
        group_size = self.group_size or DEFAULT_GROUP_SIZE
        if self.recipe is None:
            return Packing(self.bits or DEFAULT_BITS, group_size)
        low, high = RECIPES[self.recipe]
        return Packing(high if _counts(path, n_layers) else low, group_size)


def make_choice(
    *,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str | None = None,
    recipe: str | None = None,
    rules: Sequence[str] = (),
    dequantize: bool = False,
) -> Choice:
    """Return the choice these options make. Raises OptionError for a bad one, or for two that exclude each other."""
    _check_one("bits", bits, AFFINE_BITS)
    _check_one("group_size", group_size, AFFINE_GROUPS if mode not in FLOAT_MODES else (FLOAT_MODES[mode].group_size,))
    _check_one("mode", mode, MODES)
    _check_one("recipe", recipe, tuple(RECIPES))
    if mode in FLOAT_MODES and (recipe or bits not in (None, FLOAT_MODES[mode].bits)):
        raise OptionError(f"mode {mode} has {FLOAT_MODES[mode].bits} bits; leave out bits and recipe")
    if recipe and bits is not None:
        raise OptionError(f"recipe {recipe} and bits {bits} exclude each other; give one")
    if dequantize and (bits or group_size or mode or recipe or rules):
        raise OptionError("dequantize writes plain weights; leave it out, or leave out bits, recipe and rules")
    return Choice(bits, group_size, mode, recipe, tuple(_rule(text) for text in rules), dequantize)


def _check_one(name: str, value: object, allowed: tuple[object, ...]) -> None:
    if value is not None and value not in allowed:
        *first, last = (str(item) for item in allowed)
        expected = f"{', '.join(first)} or {last}" if first else last
        raise OptionError(f"{name} is {shown(str(value))}; {expected} is expected")


def _rule(text: str) -> Rule:
    """Parse ``REGEX=BITS``, ``REGEX=BITS:GROUP``, ``REGEX=MODE`` or ``REGEX=none``."""
    regex, found, how = text.rpartition("=")
    bits, _, group_size = how.partition(":")
    try:
        if not found or not regex:
            raise ValueError("it has no '='")
        if how in FLOAT_MODES or how == KEEP:
            return Rule(text, re.compile(regex), FLOAT_MODES.get(how))
        packing = Packing(int(bits), int(group_size or DEFAULT_GROUP_SIZE))
        if packing.bits not in AFFINE_BITS or packing.group_size not in AFFINE_GROUPS:
            raise ValueError(f"{how} is no packing")
        return Rule(text, re.compile(regex), packing)
    except (ValueError, re.error) as error:
        raise OptionError(
            f"rule {shown(text)} is not understood ({shown(str(error))}); give REGEX=BITS[:GROUP_SIZE], with bits "
            f"{', '.join(map(str, AFFINE_BITS))}, or REGEX={'|'.join(FLOAT_MODES)}|{KEEP}"
        ) from error


def _counts(path: str, n_layers: int) -> bool:
    """Whether mlx-lm's recipes give more bits to the module at `path`: the head, and every third v and down."""
    match = LAYER.match(path)
    if match is None:
        return path == "lm_head"
    index, eighth = int(match[1]), n_layers // 8
    is_one = index < eighth or index >= 7 * n_layers // 8 or (index - eighth) % 3 == 2
    return is_one and path.endswith(("v_proj", "down_proj"))

"""How each weight is to be packed, from what the user asked for: bits, recipes and rules; reads no checkpoint."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mistral_mlx.errors import OptionError, either, shown
from mistral_mlx.model.blocks import EXPERTS, ROUTER
from mistral_mlx.model.packing import MODES, Packing

AFFINE = "affine"
DEFAULT_BITS, DEFAULT_GROUP_SIZE = (allowed[0] for allowed in MODES[AFFINE])
SMALLEST_GROUP = min(MODES[AFFINE][1])
# mlx-lm's names and its choice of modules (mlx_lm/convert.py): few bits, and more where they count.
RECIPES = {"mixed_2_6": (2, 6), "mixed_3_4": (3, 4), "mixed_3_6": (3, 6), "mixed_4_6": (4, 6)}
KEEP = "none"
MIN_BPW, MAX_BPW = 2.25, 9.0  # 2 bits in groups of 128, 8 in groups of 32, scales and biases in 16 bits each

LAYER = re.compile(r"model\.layers\.(\d+)\.")


@dataclass(frozen=True)
class Rule:
    """The packing of modules whose path matches; None keeps them as they are."""

    text: str
    pattern: re.Pattern[str]
    packing: Packing | None
    names_group: bool = False  # its group size was given, and holds where it does not divide a row, too


@dataclass(frozen=True)
class Choice:
    """What was asked for; what is None is left to us."""

    bits: int | None = None
    group_size: int | None = None
    mode: str | None = None
    recipe: str | None = None
    rules: tuple[Rule, ...] = ()
    dequantize: bool = False  # nothing is packed
    target_bpw: float | None = None  # bits and groups are chosen to have so many bits a weight

    def carries(self, path: str) -> bool:
        """Whether nothing was asked for the module at `path`, so that it may stay as it is packed already."""
        return self == Choice(rules=self.rules) and self.rule(path) is None

    def rule(self, path: str) -> Rule | None:
        """Return the rule for the module at `path`: the last one that matches.

        For a router that is one that matches nothing else beside it: the rules for a layer, or for gate_proj, do not
        mean the router.
        """
        others = path.replace(ROUTER, f"{EXPERTS}.gate_proj") if path.endswith(ROUTER) else None
        matching = (rule for rule in reversed(self.rules) if rule.pattern.search(path))
        return next((rule for rule in matching if others is None or not rule.pattern.search(others)), None)

    def of(self, path: str, columns: int, n_layers: int) -> tuple[Packing | None, str]:
        """Return how the module at `path` is packed whose rows have so many `columns`; if not, why."""
        if self.dequantize:
            return None, ""
        rule = self.rule(path)
        if rule is not None and rule.packing is None:
            return None, f"--rule {rule.text} keeps it"
        if rule is None and path.endswith(ROUTER):
            return None, ""  # as a norm: it is small, and rounding it would choose other experts
        packing = rule.packing if rule is not None and rule.packing else self._usual(path, n_layers)
        if columns % packing.group_size == 0:
            return packing, ""
        names_group = rule.names_group if rule is not None else self.group_size is not None
        if not names_group and packing.mode == AFFINE and columns % SMALLEST_GROUP == 0:
            return packing._replace(group_size=SMALLEST_GROUP), ""
        return None, f"its {columns} columns are no multiple of the group size {packing.group_size}"

    def check_rules(self, paths: Sequence[str]) -> None:
        """Raise OptionError if a rule matches none of the modules at `paths`."""
        for rule in self.rules:
            if not any(rule.pattern.search(path) for path in paths):
                example = next((path for path in reversed(paths) if LAYER.match(path)), paths[-1])
                raise OptionError(f"rule {shown(rule.text)} matches no weight; they have names such as {example}")

    def _usual(self, path: str, n_layers: int) -> Packing:
        mode = self.mode or AFFINE
        bits, group_size = self.bits or MODES[mode][0][0], self.group_size or MODES[mode][1][0]
        if self.recipe is not None:
            low, high = RECIPES[self.recipe]
            bits = high if _counts(path, n_layers) else low
        return Packing(bits, group_size, mode)


def make_choice(
    *,
    bits: int | None = None,
    group_size: int | None = None,
    mode: str | None = None,
    recipe: str | None = None,
    rules: Sequence[str] = (),
    dequantize: bool = False,
    target_bpw: float | None = None,
) -> Choice:
    """Return the choice these options make. Raises OptionError for a bad one, or for two that exclude each other."""
    for name, value, allowed in (("mode", mode, tuple(MODES)), ("recipe", recipe, tuple(RECIPES))):
        if value is not None and value not in allowed:
            raise OptionError(f"{name} is {shown(value)}; {', '.join(allowed)} are expected")
    for name, given, numbers in zip(("bits", "group_size"), (bits, group_size), MODES[mode or AFFINE], strict=True):
        if given is not None and given not in numbers:
            raise OptionError(f"{name} is {given}; {either(numbers)} is expected{f' with mode {mode}' if mode else ''}")
    if recipe and mode not in (None, AFFINE):
        raise OptionError(f"recipe {recipe} is for mode {AFFINE}; leave out mode {mode}")
    if recipe and bits is not None:
        raise OptionError(f"recipe {recipe} and bits {bits} exclude each other; give one")
    if dequantize and (bits or group_size or mode or recipe or rules):
        raise OptionError("dequantize writes plain weights; leave it out, or leave out bits, recipe and rules")
    if target_bpw is not None and (bits or recipe or dequantize or mode not in (None, AFFINE)):
        raise OptionError("target_bpw chooses the bits; leave it out, or leave out bits, mode, recipe and dequantize")
    if target_bpw is not None and not MIN_BPW <= target_bpw <= MAX_BPW:
        raise OptionError(f"target_bpw is {target_bpw:g}; {MIN_BPW:g} to {MAX_BPW:g} bits a weight are expected")
    return Choice(bits, group_size, mode, recipe, tuple(_rule(text) for text in rules), dequantize, target_bpw)


def _rule(text: str) -> Rule:
    """Parse ``REGEX=BITS``, ``REGEX=BITS:GROUP``, ``REGEX=MODE`` or ``REGEX=none``."""
    regex, found, how = text.rpartition("=")
    try:
        if not found:
            raise ValueError("it has no '='")
        if not regex:
            raise ValueError("nothing is before its '='")
        return Rule(text, re.compile(regex), None if how == KEEP else _packing(how), ":" in how)
    except (ValueError, re.error) as error:
        floats = "|".join(mode for mode in MODES if mode != AFFINE)
        raise OptionError(
            f"rule {shown(text)} is not understood ({shown(str(error))}); give REGEX=BITS[:GROUP_SIZE] with bits "
            f"{either(MODES[AFFINE][0])}, or REGEX={floats}|{KEEP}"
        ) from error


def _packing(how: str) -> Packing:
    if how in MODES:
        return Packing(MODES[how][0][0], MODES[how][1][0], how)
    bits, _, group = how.partition(":")
    packing = Packing(int(bits), int(group or DEFAULT_GROUP_SIZE))
    if packing.bits not in MODES[AFFINE][0] or packing.group_size not in MODES[AFFINE][1]:
        raise ValueError(f"{how} is no packing")
    return packing


def _counts(path: str, n_layers: int) -> bool:
    """Whether mlx-lm's recipes give more bits to the module at `path`: the head, and every third v and down."""
    match = LAYER.match(path)
    if match is None:
        return path == "lm_head"
    index, eighth = int(match[1]), n_layers // 8
    is_one = index < eighth or index >= 7 * n_layers // 8 or (index - eighth) % 3 == 2
    return is_one and path.endswith(("v_proj", "down_proj"))

"""The order in which the reader of a grammar meets its rules: each behind those it is made of.

llguidance reads a rule by reading the rules in it, one call inside the other, and its stack is not endless. So the
grammar begins with an alternative that no text can take, which lists the rules from the innermost outwards.
"""

import re

from mistral_mlx.errors import OptionError

from .alphabet import NOTHING

MAX_CALLS = 60  # one inside the other; 100 fit a thread's stack of 512 KiB
RULE = re.compile(r"\b[a-z]\w*")


def ordered(start: str, rules: dict[str, str]) -> list[str]:
    """Return the lines of the rules, with `start` as the first. Raises OptionError for rules in too long a circle."""
    inside = {name: [one for one in dict.fromkeys(RULE.findall(text)) if one != name] for name, text in rules.items()}
    names = _innermost_first(start, inside)
    if _most_calls(names, inside) > MAX_CALLS:
        raise OptionError(f"the schema refers back through more than {MAX_CALLS} places; make its circles shorter")
    listed = f"start: NEVER listed | {start}\nNEVER: /{NOTHING}/\nlisted: {' | '.join(names)}"
    return [listed, *(f"{name}: {rules[name]}" for name in names)]


def _innermost_first(start: str, inside: dict[str, list[str]]) -> list[str]:
    found: dict[str, None] = {}
    seen = {start}
    waiting = [(start, iter(inside[start]))]
    while waiting:
        name, below = waiting[-1]
        one = next((one for one in below if one not in seen), None)
        if one is None:
            found[name] = None
            waiting.pop()
        else:
            seen.add(one)
            waiting.append((one, iter(inside[one])))
    return list(found)


def _most_calls(names: list[str], inside: dict[str, list[str]]) -> int:
    """Return how many calls stand inside each other when the rules are read in this order."""
    most = 0
    read = set[str]()
    for name in names:
        waiting = [] if name in read else [iter(inside[name])]
        read.add(name)
        while waiting:
            most = max(most, len(waiting))
            one = next((one for one in waiting[-1] if one not in read), None)
            if one is None:
                waiting.pop()
            else:
                read.add(one)
                waiting.append(iter(inside[one]))
    return most

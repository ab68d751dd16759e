"""Regular expressions and grammars, as the grammars of llguidance."""

from collections.abc import Callable

from llguidance import LLMatcher

from mistral_mlx.errors import OptionError, shown

from .gbnf import gbnf_rules
from .lark import IGNORED, is_terminal, read_lark
from .lark_text import lark_text
from .limits import check_grammar, check_length, check_texts
from .regex import MAX_CHOICES, MAX_SIZE, translated
from .regex_reader import PatternFault
from .rules import (
    GrammarFault,
    Rules,
    Size,
    Word,
    check_depth,
    check_ends,
    check_names,
    names,
    nodes,
    plain,
    reachable,
    sizes,
)

MAX_LETTERS = 20_000  # that are tokens of their own


def regex_grammar(pattern: str) -> str:
    """Return the grammar of all texts that a regular expression matches as a whole. Raises OptionError.

    Each of these texts is one that `re.fullmatch(pattern, text)` matches; `\\d` and `\\s` mean fewer letters than
    Python knows of, see `regex.py`.
    """
    what = f"the regular expression {shown(pattern, limit=40)}"
    if not pattern:
        raise OptionError("the regular expression is empty; write one, for example [a-z]+")
    check_length(pattern, what)
    try:
        expression = translated(pattern)
    except PatternFault as fault:
        raise OptionError(f"{what} cannot be used: {fault}") from fault
    grammar = LLMatcher.grammar_from_lark(f"start: /{expression.text}/")
    check_grammar(grammar, what)
    check_texts(grammar, what)
    return grammar


def lark_grammar(text: str) -> str:
    """Return the grammar that `text` describes in Lark's notation. Raises OptionError."""
    return _grammar(text, _lark_of_lark)


def gbnf_grammar(text: str) -> str:
    """Return the grammar that `text` describes in llama.cpp's notation. Raises OptionError.

    A grammar without recursion becomes one expression, which is fast. In others each letter is a token of Lark: there,
    a longer token would take as much as it can, and what the grammar has behind it might get nothing.
    """
    return _grammar(text, _lark_of_gbnf)


def _lark_of_lark(text: str) -> str:
    rules, imported = (grammar := read_lark(text)).rules, grammar.imported
    check_names(rules, "start")
    used = reachable(rules, "start")
    if IGNORED in rules:
        used += [name for name in reachable(rules, IGNORED) if name not in used]
        check_depth(rules, IGNORED)
    _check_terminals(rules, [name for name in used if is_terminal(name)])
    check_ends(rules, used)
    check_depth(rules, used[0])
    short = {name: f"{'T' if is_terminal(name) else 'r'}{index}" for index, name in enumerate(used)}
    # Forced letters are searched for without a limit: in /x(ab)*/ "ab" the terminal takes each "ab", for ever.
    head = ['%llguidance {"no_forcing": true}\n']
    head += [f"%import {imported[name]} -> {short[name]}\n" for name in used if name in imported]
    head += [f"%ignore {short[name]}\n" for name in used if name == IGNORED]
    written = [name for name in used if name not in imported]
    return "".join(head) + "start: r0\n" + lark_text(rules, written, short.__getitem__)


def _check_terminals(rules: Rules, terminals: list[str]) -> None:
    """Raise GrammarFault for a terminal that is no expression, or one that is too large."""
    ending = plain(rules)
    for terminal in terminals:
        if rule := next((name.name for name in names(rules[terminal]) if not is_terminal(name.name)), None):
            raise GrammarFault(
                f"has the terminal {terminal}, which refers to the rule {rule}; write rules in small letters"
            )
        if terminal not in ending:
            raise GrammarFault(f"has the terminal {terminal}, which refers to itself; write rules in small letters")
    for terminal, size in sizes(rules, terminals, MAX_SIZE).items():
        if size.letters > MAX_SIZE:
            raise GrammarFault(
                f"has the terminal {terminal} of more than {MAX_SIZE:,} letters, with its repetitions written out"
            )
        if size.choices > MAX_CHOICES:
            raise GrammarFault(f"has the terminal {terminal} with more than {MAX_CHOICES} repetitions and alternatives")


def _lark_of_gbnf(text: str) -> str:
    rules = gbnf_rules(text)
    check_names(rules, "root")
    used = reachable(rules, "root")
    check_ends(rules, used)
    check_depth(rules, used[0])
    if "root" in plain(rules) and _fits(sizes(rules, ["root"], MAX_SIZE)["root"]):
        terminals = {name: f"T{index}" for index, name in enumerate(used)}
        return "start: T0\n" + lark_text(rules, used, terminals.__getitem__)
    if sum(len(node.text) for name in used for node in nodes(rules[name]) if isinstance(node, Word)) > MAX_LETTERS:
        raise GrammarFault(f"has more than {MAX_LETTERS:,} letters in its words")
    letters = {name: f"r{index}" for index, name in enumerate(used)}
    return "start: r0\n" + lark_text(rules, used, letters.__getitem__, by_letter=True)


def _fits(size: Size) -> bool:
    """Return whether one expression may be so large."""
    return size.letters <= MAX_SIZE and size.choices <= MAX_CHOICES


def _grammar(text: str, translate: Callable[[str], str]) -> str:
    """Check a grammar and return it for llguidance."""
    if not text.strip():
        raise OptionError("the grammar is empty; write at least one rule")
    check_length(text, "the grammar")
    try:
        lark = translate(text)
    except GrammarFault as fault:
        raise OptionError(shown(f"the grammar {fault}", limit=240)) from fault
    grammar = LLMatcher.grammar_from_lark(lark)
    check_grammar(grammar, "the grammar")
    check_texts(grammar, "the grammar")
    return grammar

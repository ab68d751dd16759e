"""Regular expressions and grammars, as the grammars of llguidance."""

from collections.abc import Callable

from llguidance import LLMatcher

from mistral_mlx.errors import OptionError, shown

from .gbnf import gbnf_rules
from .lark_text import lark_text
from .limits import MAX_CHARACTERS, check_grammar, check_texts
from .regex import MAX_SIZE, translated
from .regex_reader import PatternFault
from .rules import GrammarFault, check_rules, plain, reachable, sizes


def regex_grammar(pattern: str) -> str:
    """Return the grammar of all texts that a regular expression matches as a whole. Raises OptionError.

    Each of these texts is one that `re.fullmatch(pattern, text)` matches; `\\d` and `\\s` mean fewer letters than
    Python knows of, see `regex.py`.
    """
    what = f"the regular expression {shown(pattern, limit=40)}"
    if not pattern:
        raise OptionError("the regular expression is empty; write one, for example [a-z]+")
    if len(pattern) > MAX_CHARACTERS:
        raise OptionError(f"{what} has {len(pattern):,} characters; give one of at most {MAX_CHARACTERS:,}")
    try:
        expression, _ = translated(pattern)
    except PatternFault as fault:
        raise OptionError(f"{what} cannot be used: {fault}") from fault
    grammar = LLMatcher.grammar_from_lark(f"start: /{expression}/")
    check_grammar(grammar, what)
    check_texts(grammar, what)
    return grammar


def lark_grammar(text: str) -> str:
    """Return the grammar that `text` describes in Lark's notation. Raises OptionError."""
    grammar = LLMatcher.grammar_from_lark(text)
    check_grammar(grammar, "the grammar")
    return grammar


def gbnf_grammar(text: str) -> str:
    """Return the grammar that `text` describes in llama.cpp's notation. Raises OptionError.

    A grammar without recursion becomes one expression, which is fast. In others each letter is a token of Lark: there,
    a longer token would take as much as it can, and what the grammar has behind it might get nothing.
    """
    return _grammar(text, _lark_of_gbnf)


def _lark_of_gbnf(text: str) -> str:
    rules = gbnf_rules(text)
    check_rules(rules, "root")
    used = reachable(rules, "root")
    number = {name: index for index, name in enumerate(used)}
    if "root" in plain(rules) and sizes(rules, {"root"}, MAX_SIZE)["root"] <= MAX_SIZE:
        return "start: T0\n" + lark_text(rules, used, lambda name: f"T{number[name]}")
    return "start: r0\n" + lark_text(rules, used, lambda name: f"r{number[name]}", by_letter=True)


def _grammar(text: str, translate: Callable[[str], str]) -> str:
    """Check a grammar and return it for llguidance."""
    if not text.strip():
        raise OptionError("the grammar is empty; write at least one rule")
    if len(text) > MAX_CHARACTERS:
        raise OptionError(f"the grammar has {len(text):,} characters; give one of at most {MAX_CHARACTERS:,}")
    try:
        lark = translate(text)
    except GrammarFault as fault:
        raise OptionError(shown(f"the grammar {fault}", limit=240)) from fault
    grammar = LLMatcher.grammar_from_lark(lark)
    check_grammar(grammar, "the grammar")
    check_texts(grammar, "the grammar")
    return grammar

"""Regular expressions and grammars, as the grammars of llguidance."""

from llguidance import LLMatcher

from .limits import check_grammar


def regex_grammar(pattern: str) -> str:
    """Return the grammar of all texts that a regular expression matches as a whole. Raises OptionError."""
    grammar = LLMatcher.grammar_from_regex(pattern)
    check_grammar(grammar, "the regular expression")
    return grammar


def lark_grammar(text: str) -> str:
    """Return the grammar that `text` describes in Lark's notation. Raises OptionError."""
    grammar = LLMatcher.grammar_from_lark(text)
    check_grammar(grammar, "the grammar")
    return grammar


def gbnf_grammar(text: str) -> str:
    """Return the grammar that `text` describes in llama.cpp's notation. Raises OptionError."""
    raise NotImplementedError(text)

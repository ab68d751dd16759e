"""Regular expressions and grammars, as the grammars of llguidance."""

from llguidance import LLMatcher

from mistral_mlx.errors import OptionError, shown

from .limits import MAX_CHARACTERS, check_grammar, check_texts
from .regex import translated
from .regex_reader import PatternFault


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
    """Return the grammar that `text` describes in llama.cpp's notation. Raises OptionError."""
    raise NotImplementedError(text)

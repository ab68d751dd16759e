"""How large a schema, an expression or a grammar may be, so that a hostile one costs no more than a moment."""

from llguidance import LLMatcher, LLParserLimits

from mistral_mlx.errors import OptionError, shown

MAX_CHARACTERS = 200_000  # of a schema, an expression or a grammar
LIMITS = LLParserLimits(verbose_errors=False)


def check_grammar(grammar: str, what: str) -> None:
    """Raise OptionError if `grammar`, one of llguidance, cannot be used. `what` names it for the user."""
    if fault := LLMatcher.validate_grammar(grammar, limits=LIMITS):
        raise OptionError(f"{what} cannot be used: {shown(fault, limit=160)}")

"""How large a schema, an expression or a grammar may be, so that a hostile one costs no more than a moment."""

from functools import cache

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from mistral_mlx.errors import OptionError, shown

MAX_CHARACTERS = 200_000  # of a schema, an expression or a grammar

# The bounds of llguidance. They hold for each step of a generation, too: a step that reaches one is the end of the
# answer, so they are wide enough for all sensible grammars and narrow enough for a second or two and 500 MB.
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=1_000_000,
    step_max_items=500_000,  # rules that read letter by letter need many
    max_items_in_row=1_000,
    max_lexer_states=100_000,  # 1-2 kB each
    max_grammar_size=200_000,
    precompute_large_lexemes=False,  # would make the fault of an expression depend on the tokenizer
    verbose_errors=False,
)


def check_grammar(grammar: str, what: str) -> None:
    """Raise OptionError if `grammar`, one of llguidance, cannot be used. `what` names it for the user."""
    try:
        fault = LLMatcher.validate_grammar(grammar, limits=LIMITS)
    except Exception as error:
        fault = str(error)
    except BaseException as error:  # a panic of Rust is no Exception
        if type(error).__name__ != "PanicException":
            raise
        fault = "llguidance gave up on it"
    if fault:
        raise OptionError(f"{what} cannot be used: {shown(fault, limit=160)}")


def check_texts(grammar: str, what: str) -> None:
    """Raise OptionError if no text, or none but the empty one, is a text of `grammar`, which is a valid one."""
    matcher = LLMatcher(_bytes_only(), grammar, log_level=0, limits=LIMITS)
    allowed = int.from_bytes(matcher.compute_bitmask(), "little") if not matcher.is_error() else 0
    if allowed & ~(1 << _Bytes.eos_token_id):
        return
    if matcher.is_accepting():
        raise OptionError(f"{what} allows only the empty text; give one that allows an answer")
    raise OptionError(f"{what} allows no text at all; give one that allows an answer")


class _Bytes:
    """A vocabulary whose tokens are the single bytes, and the end."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"\xff<eos>")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def _bytes_only() -> LLTokenizer:
    return LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])

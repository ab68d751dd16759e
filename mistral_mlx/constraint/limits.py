"""How large a schema, an expression or a grammar may be, so that a hostile one costs no more than a moment."""

from collections.abc import Callable
from functools import cache
from threading import Thread
from time import process_time
from typing import TypeVar

from llguidance import LLMatcher, LLParserLimits, LLTokenizer, TokenizerWrapper

from mistral_mlx.errors import OptionError, shown

MAX_CHARACTERS = 200_000  # of a schema, an expression or a grammar
SECONDS = 2.0  # of the processor, to prepare one and for each token

T = TypeVar("T")

# The bounds of llguidance. They hold for each step of a generation, too, and a step that reaches one is the end of the
# answer. They bound memory well, but time only for grammars in which few rules compete at one place.
LIMITS = LLParserLimits(
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=10_000_000,
    step_max_items=300_000,  # rules that read letter by letter need many
    max_items_in_row=1_000,
    max_lexer_states=100_000,  # 1-2 kB each
    max_grammar_size=200_000,
    precompute_large_lexemes=False,  # would make the fault of an expression depend on the tokenizer
    verbose_errors=False,
)
# Those of a schema, whose grammar we write: its rules tell soon which of them goes on.
SCHEMA_LIMITS = LLParserLimits(
    max_items_in_row=30_000,  # places of the grammar at which a text may stand; many objects in an anyOf need it
    step_max_items=1_000_000,  # about 50 ms
    step_lexer_fuel=4_000_000,  # about 0.4 s for one step at worst; patterns joined by "and" and "not" need it
    max_lexer_states=150_000,  # about 2 kB each
    verbose_errors=False,
)


def check_length(text: str, what: str) -> None:
    """Raise OptionError if a text of the user is too long."""
    if len(text) > MAX_CHARACTERS:
        raise OptionError(f"{what} has {len(text):,} characters; give one of at most {MAX_CHARACTERS:,}")


def check_grammar(grammar: str, what: str, limits: LLParserLimits = LIMITS) -> None:
    """Raise OptionError if `grammar`, one of llguidance, cannot be used. `what` names it for the user."""
    if fault := in_time(lambda: LLMatcher.validate_grammar(grammar, limits=limits), what):
        raise _unusable(what, fault)


def check_texts(grammar: str, what: str, limits: LLParserLimits = LIMITS) -> None:
    """Raise OptionError if no text, or none but the empty one, is a text of `grammar`, which is a valid one."""
    matcher = LLMatcher(byte_tokenizer(), grammar, log_level=0, limits=limits)
    mask = in_time(matcher.compute_bitmask, what) if not matcher.is_error() else b""
    if matcher.is_error() and not matcher.get_error().startswith("NoExtension"):
        raise _unusable(what, matcher.get_error())
    if not int.from_bytes(mask, "little") & ~(1 << _Bytes.eos_token_id):
        texts = "no text at all" if matcher.is_error() else "only the empty text"
        raise OptionError(f"{what} allows {texts}; give one that allows an answer")


def in_time(work: Callable[[], T], what: str) -> T:
    """Return what `work` returns. Raises OptionError if it panics or needs too much time.

    The limits of llguidance do not bound the time of each grammar, and its calls cannot be stopped: one that needs too
    long is left alone in its thread, which ends with the program. The time is that of the processor, so that a program
    that was halted for a while goes on.
    """
    results: list[T] = []
    faults: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # a panic of Rust is no Exception
            faults.append(error)

    worker = Thread(target=run, daemon=True)
    started = process_time()
    worker.start()
    while worker.is_alive():
        worker.join(0.05)
        if worker.is_alive() and process_time() - started > SECONDS:
            raise OptionError(f"{what} needs more than {SECONDS:g} s for one step; give a simpler one")
    if faults:
        raise _unusable(what, f"panic: {faults[0]}") from faults[0]
    return results[0]


def _unusable(what: str, fault: str) -> OptionError:
    """Return the error for what llguidance says, which may have many lines."""
    lines = fault.split("\n")
    said = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
    if said.startswith("panic:"):  # a limit of its own, mostly
        said = f"llguidance gave up on it ({said}); give a smaller or simpler one"
    return OptionError(f"{what} cannot be used: {shown(said, limit=200)}")


class _Bytes:
    """A vocabulary whose tokens are the single bytes, and the end."""

    eos_token_id = 256
    bos_token_id = None
    tokens = (*(bytes([byte]) for byte in range(256)), b"\xff<eos>")
    special_token_ids = (256,)

    def __call__(self, text: bytes | str) -> list[int]:
        return list(text.encode() if isinstance(text, str) else text)


@cache
def byte_tokenizer() -> LLTokenizer:
    """Return a tokenizer whose tokens are single bytes; 256 ends a text."""
    return LLTokenizer(TokenizerWrapper(_Bytes()), slices=[])

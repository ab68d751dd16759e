"""Fill in the middle: what stands before and behind a gap, as ids; knows nothing of messages.

The format is Mistral's for Codestral, and equals mistral-common's: ``<s>[SUFFIX] suffix [PREFIX] prefix``, after which
the model writes the middle.
"""

from mistral_mlx.errors import OptionError
from mistral_mlx.tokenizer.base import Tokenizer

SUFFIX, PREFIX = "[SUFFIX]", "[PREFIX]"
ANCHOR = "☺"  # mistral-common's; a text behind it gets no dummy space


def encode_infill(tokenizer: Tokenizer, prefix: str, suffix: str) -> list[int]:
    """Return the ids after which the model writes what belongs between `prefix` and `suffix`.

    Raises OptionError if the vocabulary has no tokens for it.
    """
    for text in (SUFFIX, PREFIX):
        if text not in tokenizer.control:
            raise OptionError(f"this model cannot fill in the middle: it has no {text} token, as Codestral's has")
    if tokenizer.bos_id is None:
        raise OptionError("this model cannot fill in the middle: it has no token for the beginning of a text")
    behind = [tokenizer.control[SUFFIX], *_without_dummy_space(tokenizer, suffix)]
    return [tokenizer.bos_id, *behind, tokenizer.control[PREFIX], *tokenizer.encode(prefix)]


def _without_dummy_space(tokenizer: Tokenizer, text: str) -> list[int]:
    if not text:
        return []
    anchor, ids = tokenizer.encode(ANCHOR), tokenizer.encode(ANCHOR + text)
    return ids[len(anchor) :] if ids[: len(anchor)] == anchor else tokenizer.encode(text)

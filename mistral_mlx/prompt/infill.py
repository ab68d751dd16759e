"""Encodes the texts before and after a gap, for a model that can fill in the middle.

The format is that of Mistral's Codestral, as in mistral-common: ``<s>[SUFFIX] suffix [PREFIX] prefix``. The model then
writes the middle.
"""

from mistral_mlx.errors import OptionError
from mistral_mlx.tokenizer.base import Tokenizer

SUFFIX, PREFIX = "[SUFFIX]", "[PREFIX]"
ANCHOR = "☺"  # mistral-common's; a text after it gets no dummy space


def encode_infill(tokenizer: Tokenizer, prefix: str, suffix: str) -> list[int]:
    """Return the prompt ids for which the model writes the text between `prefix` and `suffix`.

    Raises OptionError if the vocabulary has no tokens for this.
    """
    for text in (SUFFIX, PREFIX):
        if text not in tokenizer.control:
            raise OptionError(f"this model cannot fill in the middle: it has no {text} token; Codestral has one")
    if tokenizer.bos_id is None:
        raise OptionError("this model cannot fill in the middle: it has no token for the beginning of a text")
    after = [tokenizer.control[SUFFIX], *_without_dummy_space(tokenizer, suffix)]
    return [tokenizer.bos_id, *after, tokenizer.control[PREFIX], *tokenizer.encode(prefix)]


def _without_dummy_space(tokenizer: Tokenizer, text: str) -> list[int]:
    if not text:
        return []
    anchor, ids = tokenizer.encode(ANCHOR), tokenizer.encode(ANCHOR + text)
    return ids[len(anchor) :] if ids[: len(anchor)] == anchor else tokenizer.encode(text)

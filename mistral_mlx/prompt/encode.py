"""Messages to ids, in the chat format that a model was trained on.

Mistral's formats are written as ids. Models with a chat template of another kind (ChatML, Zephyr, Llama 3) have it
rendered, and the control tokens of the rendering turned into ids. Either way the text of a message never becomes a
control id.

An assistant message may carry `ids`, the ids as they were generated, without the one that ended the turn. They are
used unchanged: re-encoding generated text need not give the ids that were generated.
"""

from collections.abc import Mapping, Sequence

from mistral_mlx.errors import OptionError, TokenizerError, shown
from mistral_mlx.tokenizer.base import Tokenizer

from .disguise import encode_by_template
from .messages import checked, merged
from .mistral_formats import FORMATS, encode_v1_to_v3, encode_v7


def encode_chat(
    tokenizer: Tokenizer, messages: Sequence[Mapping[str, object]], *, template: str | None = None
) -> list[int]:
    """Return the ids after which the model writes the next answer.

    `messages` have a "role" (system, user or assistant) and a "content"; assistant messages may have "ids". After a
    user message an answer follows; an assistant message at the end is left open, for the model to continue. Messages
    of the same role that follow each other are joined, empty assistant messages are left out.

    `template` is one of v1, v2, v3 and v7 to use that format instead of the model's own.

    Raises OptionError for messages or a template that cannot be, TokenizerError if the model has no usable format.
    """
    turns = merged(checked(messages))
    version = chat_format(tokenizer, template)
    if version is None:
        return encode_by_template(tokenizer, turns)
    if version == "v7":
        return encode_v7(tokenizer, turns)
    return encode_v1_to_v3(tokenizer, turns, version)


def chat_format(tokenizer: Tokenizer, template: str | None = None) -> str | None:
    """Return which of FORMATS is written, None for the chat template of the model.

    Raises OptionError for a `template` that cannot be, TokenizerError if the model has no usable format.
    """
    if template is not None:
        if template not in FORMATS:
            raise OptionError(f"there is no chat format {shown(template)}; choose one of {', '.join(FORMATS)}")
        needed = {"v1": (), "v7": ("[INST]", "[/INST]", "[SYSTEM_PROMPT]", "[/SYSTEM_PROMPT]")}
        for text in needed.get(template, ("[INST]", "[/INST]")):
            if text not in tokenizer.control:
                raise OptionError(f"this model has no {text} token, which the chat format {template} needs; use v1")
        return template
    own = tokenizer.chat_template
    is_mistral = own is None or ("[INST]" in own and "<<SYS>>" not in own)  # <<SYS>> is Llama 2's
    if tokenizer.version is not None and is_mistral:
        return tokenizer.version
    if own is None:
        raise TokenizerError("this model has no chat template; complete a text instead, or choose a chat format")
    return None

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
from mistral_mlx.tokenizer.versions import NEEDED, VERSIONS, Efforts

from .content import JOINED
from .disguise import encode_by_template
from .messages import checked, merged, with_schema
from .mistral_formats import encode_mistral
from .structure import check_thinking, check_tools, in_call_order
from .tools import checked_tools


def encode_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, object]],
    *,
    template: str | None = None,
    tools: Sequence[Mapping[str, object]] | None = None,
    reasoning_effort: str | None = None,
    schema: Mapping[str, object] | bool | None = None,
) -> list[int]:
    """Return the ids after which the model writes the next answer.

    `messages` have a "role" (system, user, assistant or tool) and a "content": a text, or a list of chunks
    ``{"type": "text", "text": …}`` and, in system and assistant messages, ``{"type": "thinking", "thinking": …}``.
    Assistant messages may have "ids", "reasoning" (the same as a chunk of thinking in front) and "tool_calls"; a tool
    message has the result of one of these and its "tool_call_id". After a user or tool message an answer follows; an
    assistant message at the end is left open, for the model to continue. Messages of the same role that follow each
    other are joined, empty assistant messages are left out.

    `template` is one of v1 to v15 to use that format instead of the model's own. `tools` are definitions of functions
    in OpenAI's form. `reasoning_effort` is a setting of models with v15. `schema`, a JSON Schema, tells the model what
    the answer is to be: in the settings of a v15 that knows it, else in a line of the system prompt.

    Raises OptionError for what cannot be, TokenizerError if the model has no usable format.
    """
    version = chat_format(tokenizer, template)
    setting = schema if version == "v15" and tokenizer.takes_schema else None
    turns = checked(messages if schema is None or setting is not None else with_schema(messages, schema))
    offered = checked_tools(tools)
    effort = effort_of(tokenizer, version, reasoning_effort)
    check_tools(turns, offered, version)
    check_thinking(turns, version)
    turns = merged(turns, "" if version == "v15" else JOINED)
    if version is None:
        return encode_by_template(tokenizer, turns)
    return encode_mistral(
        tokenizer, in_call_order(turns, version), version, tools=offered, effort=effort, schema=setting
    )


def chat_format(tokenizer: Tokenizer, template: str | None = None) -> str | None:
    """Return which of VERSIONS is written, None for the chat template of the model.

    Raises OptionError for a `template` that cannot be, TokenizerError if the model has no usable format.
    """
    if template is not None:
        if template not in VERSIONS:
            raise OptionError(f"there is no chat format {shown(template)}; choose one of {', '.join(VERSIONS)}")
        for text in NEEDED[template]:
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


def effort_of(tokenizer: Tokenizer, version: str | None, asked: str | None) -> str | None:
    """Return the effort that the format `version` writes; None if it writes none. Raises OptionError."""
    efforts = tokenizer.efforts
    if version == "v15" and tokenizer.version != "v15":
        efforts = Efforts()  # the format was named, and the vocabulary's own has no settings
    if version != "v15" or efforts is None:
        if asked is not None:
            raise OptionError(f"reasoning_effort is {shown(asked)}; this model has no such setting, leave it out")
        return None
    if asked is not None and asked not in efforts.values:
        raise OptionError(f"reasoning_effort is {shown(asked)}; this model knows {', '.join(efforts.values)}")
    return efforts.default if asked is None else asked

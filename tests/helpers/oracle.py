"""The ids of mistral-common for a whole request, and random conversations to compare with it."""

import random

from helpers.messages import HOSTILE, UNICODE
from mistral_common.exceptions import MistralCommonException
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, ToolMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.protocol.instruct.tool_calls import Tool
from pydantic import ValidationError

from mistral_mlx import OptionError, encode_chat

KINDS = {"user": UserMessage, "system": SystemMessage, "assistant": AssistantMessage, "tool": ToolMessage}
REFUSED = "refused"
TEXTS = ["a", "Hello there", "  b  ", UNICODE, HOSTILE, "", "5", '{"x": [1, 2.50, "é"]}', "[TOOL_CALLS]x[ARGS]{}"]
ADD = {
    "type": "function",
    "function": {
        "name": "add",
        "description": "Add naïvely.",
        "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]},
        "strict": True,
    },
}


def truth(tokenizer, messages, tools=None, effort=None):
    """Return mistral-common's ids through its public door, or REFUSED."""
    try:
        converted = [KINDS[m["role"]].from_openai({"content": None, **m}) for m in messages]
        if messages[-1]["role"] == "assistant":
            converted[-1].prefix = True
        offered = [Tool.from_openai(tool) for tool in tools] if tools else None
        request = ChatCompletionRequest(messages=converted, tools=offered, reasoning_effort=effort)
        return tokenizer.encode_chat_completion(request).tokens
    except (MistralCommonException, ValidationError, ValueError):
        return REFUSED


def ours(tokenizer, messages, tools=None, effort=None):
    """Return our ids, or REFUSED."""
    try:
        return encode_chat(tokenizer, messages, tools=tools, reasoning_effort=effort)
    except OptionError:
        return REFUSED


def call(arguments='{"a": 2}', call_id="abcdef123", name="add"):
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


def result(content="5", call_id="abcdef123", **more):
    return {"role": "tool", "tool_call_id": call_id, "content": content, **more}


def calls(*made, **more):
    return {"role": "assistant", "tool_calls": list(made), **more}


def thinking(text, **more):
    return {"type": "thinking", "thinking": text, **more}


def text(text):
    return {"type": "text", "text": text}


def random_request(seed):
    """Return messages, tools and an effort, most of which some version allows."""
    rng = random.Random(seed)
    chance = lambda share: rng.random() < share  # noqa: E731
    messages = [{"role": "system", "content": _content(rng, thinks=chance(0.3))}] if chance(0.4) else []
    n_turns = rng.randint(1, 3)
    for turn in range(n_turns):
        messages += [{"role": "user", "content": _content(rng)} for _ in range(1 + chance(0.1))]
        while chance(0.5):
            messages += _calls_and_results(rng)
        if turn < n_turns - 1 or chance(0.2):
            messages.append({"role": "assistant", "content": _content(rng, thinks=chance(0.3)) or "b"})
    tools = [ADD, {"type": "function", "function": {"name": "now"}}][: rng.randint(0, 2)]
    effort = rng.choice(["none", "high", "low"]) if chance(0.2) else None
    return messages, tools, effort


def _content(rng, *, thinks=False):
    if not thinks and rng.random() < 0.6:
        return rng.choice(TEXTS)
    kinds = [text, thinking] if thinks else [text]
    return [rng.choice(kinds)(rng.choice(TEXTS[:5])) for _ in range(rng.randint(1, 3))]


def _calls_and_results(rng):
    ids = rng.sample(
        ["abcdef123", "zyxwvu987", "000000000", "short", "null"][: rng.choice([3, 3, 5])], rng.randint(1, 2)
    )
    arguments = ['{"a": 2}', '{"a":2,"b":"é"}', "", "nonsense", {"a": [1, {"z": "ü"}]}]
    made = calls(*(call(rng.choice(arguments), i) for i in ids), content=_content(rng) if rng.random() < 0.2 else "")
    rng.shuffle(ids)
    answered = ids[1:] if rng.random() < 0.1 else ids
    return [made, *(result(_content(rng), i, **({"name": "add"} if rng.random() < 0.5 else {})) for i in answered)]

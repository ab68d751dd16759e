"""Text from a model: `stream` works on a timeline, all else on a model and, if one is given, a cache."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import mlx.core as mx

from mistral_mlx.model.cache import RollingBufferCache
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.progress import Progress
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.tokenizer.choose import Tokenizer

from .answer import DEFAULT_MAX_TOKENS, AnswerOptions, AnswerStream
from .decode import Choose, decode
from .response import GenerationResponse
from .timeline import Timeline

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint


def stream(timeline: Timeline, tokenizer: Tokenizer, ids: Sequence[int], options: AnswerOptions) -> AnswerStream:
    """Return the text that follows `ids`, piece by piece, up to a stop id, a stop string, or a limit.

    `ids` are the whole text so far. What the timeline holds of them is not evaluated again. Stop ids are those of the
    config, the generation config and the tokenizer together; neither they nor the stop strings are part of the text,
    nor is a character that a limit cuts in two. What the model thinks is apart from the text.

    The first piece raises OptionError for invalid ids, ContextError if they do not fit.
    """
    return AnswerStream(timeline, tokenizer, ids, options)


def prefill(
    model: Mistral,
    ids: Sequence[int],
    cache: list[RollingBufferCache],
    *,
    prefill_step_size: int | None = None,
    progress: Progress | None = None,
) -> mx.array:
    """Feed `ids` to the model in steps and return the float32 logits ``[V]`` after the last one.

    `progress` is called with strictly increasing counts of tokens, from 0 to all. It may raise an exception to stop
    between two steps; the cache then holds the steps done.

    Raises OptionError for invalid ids, ContextError if they do not fit.
    """
    timeline = Timeline(model, cache)
    timeline.extend([int(token) for token in ids], progress, step_size=prefill_step_size)
    assert timeline.logits is not None, len(ids)
    return timeline.logits


def generate_step(
    prompt: Sequence[int],
    model: Mistral,
    *,
    cache: list[RollingBufferCache] | None = None,
    history: Sequence[int] = (),
    sampler: Choose | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    prefill_step_size: int | None = None,
) -> Iterator[int]:
    """Yield up to `max_tokens` ids that continue the ids `prompt`, stop ids included and not obeyed.

    The prompt continues what `cache` holds; penalties look back on `history` and the prompt. A yielded id enters the
    cache when the next one is asked for.

    Raises OptionError for an empty prompt or an invalid limit, ContextError if the prompt does not fit.
    """
    options = AnswerOptions(max_tokens=max_tokens)
    timeline = Timeline(model, cache, history)
    timeline.extend([int(token) for token in prompt], step_size=prefill_step_size)
    yield from (decoded.token for decoded in decode(timeline, sampler or Sampler(), options.max_tokens))


def stream_generate(
    model: Mistral,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    cache: list[RollingBufferCache] | None = None,
    sampler: Choose | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    stop: Sequence[str] = (),
    constraint: "Constraint | None" = None,
) -> Iterator[GenerationResponse]:
    """Yield the text that follows `prompt`, piece by piece; see `stream`.

    The prompt continues what `cache` holds. If it is a string, the leading space that joins it to the answer is kept.
    With a `constraint` the text can be nothing else; it is whole if the `finish_reason` is "stop".

    Raises OptionError for an empty prompt or an invalid limit, ContextError if the prompt does not fit.
    """
    timeline, is_text = Timeline(model, cache), isinstance(prompt, str)
    if isinstance(prompt, str):  # a text that goes on has its bos already
        ids = tokenizer.encode(prompt, bos=tokenizer.add_bos and timeline.position == 0)
    else:
        ids = [int(token) for token in prompt]
    options = AnswerOptions(
        sampler=sampler,
        max_tokens=max_tokens,
        stop=stop,
        constraint=constraint,
        continues=is_text,
        splits=not is_text,
    )
    yield from stream(timeline, tokenizer, ids, options)


def generate(
    model: Mistral,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    sampler: Choose | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    stop: Sequence[str] = (),
    constraint: "Constraint | None" = None,
) -> str:
    """Return the whole text that follows `prompt`; see `stream_generate`.

    ``constraint.meaning(text)`` tells whether it is whole.
    """
    responses = stream_generate(
        model, tokenizer, prompt, sampler=sampler, max_tokens=max_tokens, stop=stop, constraint=constraint
    )
    return "".join(response.text for response in responses)

"""Several answers to one prompt, which is evaluated once; knows nothing of how they are chosen."""

from collections.abc import Iterator, Sequence

import mlx.core as mx

from mistral_mlx.model.cache import RollingBufferCache, make_cache
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.tokenizer.choose import Tokenizer

from .stream import DEFAULT_MAX_TOKENS, GenerationResponse, OnPrefill, stream_generate


def stream_samples(
    model: Mistral,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    samplers: Sequence[Sampler],
    *,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    stop: Sequence[str] = (),
    on_prefill: OnPrefill | None = None,
    continues: bool = False,
    n_logprobs: int | None = None,
) -> Iterator[Iterator[GenerationResponse]]:
    """Yield, for each of the `samplers`, the stream of an answer to `ids`, one after the other.

    Each is what `stream_generate` yields with that sampler alone, but that all after the first find the prompt cached.
    The first must be begun before the second is asked for.
    """
    cache = make_cache(model.args)
    prompt: list[RollingBufferCache] = []
    after: list[mx.array] = []

    def keep(logits: mx.array) -> None:
        if len(samplers) > 1 and not after:
            after.append(logits)
            prompt.extend(layer.copy() for layer in cache)

    for index, sampler in enumerate(samplers):
        yield stream_generate(
            model,
            tokenizer,
            ids,
            cache=[layer.copy() for layer in prompt] if index else cache,
            logits=after[0] if index else None,
            sampler=sampler,
            max_tokens=max_tokens,
            stop=stop,
            on_prefill=on_prefill,
            on_prompt=keep,
            continues=continues,
            n_logprobs=n_logprobs,
        )

"""The token loop: prefill, then decode. `generate_step` deals in ids; `stream_generate` and `generate` in text."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import ContextError, OptionError
from mistral_mlx.kernels.memory import peak_memory
from mistral_mlx.model.cache import RollingBufferCache, make_cache
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.sampling.logprobs import LogprobRecorder, TokenLogprobs
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.tokenizer.choose import Tokenizer
from mistral_mlx.tokenizer.detokenizer import StreamingDetokenizer

DEFAULT_MAX_TOKENS = 2048
GPU_PREFILL_STEP_SIZE = 512  # bounds the memory of a step
CPU_PREFILL_STEP_SIZE = 256  # as fast as any larger; a block of a 7B, which an interrupt waits for, takes half a second

OnPrefill = Callable[[int, int], None]  # (tokens done, tokens in all), see `prefill`
OnPrompt = Callable[[mx.array], None]  # gets the logits after the prompt, which the cache then holds
Choose = Callable[[mx.array, Sequence[int]], int]  # what a Sampler does


@dataclass(frozen=True)
class GenerationResponse:
    """A piece of streamed text and the state after it; the last piece has a `finish_reason`."""

    text: str
    token: int
    finish_reason: str | None  # "stop", "length" or "context"; None while it goes on
    prompt_tokens: int  # all tokens before the answer, cached ones included
    cached_tokens: int  # those of them that the cache already held
    generation_tokens: int
    prompt_tps: float  # tokens per second, of those evaluated
    generation_tps: float
    ttft_s: float  # time to first token: from the call to the first choice
    peak_memory_gb: float  # 1e9 bytes
    logprobs: TokenLogprobs | None = None  # of `token`, if they were asked for


def prefill(
    model: Mistral,
    ids: Sequence[int],
    cache: list[RollingBufferCache],
    *,
    prefill_step_size: int | None = None,
    on_prefill: OnPrefill | None = None,
) -> mx.array:
    """Feed `ids` to the model in steps and return the float32 logits ``[V]`` after the last one.

    `on_prefill` is called before, between and after the steps, and on a CPU after each block with a share of the step,
    but never twice with one count. It may raise to stop between two steps; the cache then holds the steps done.

    Raises OptionError for ids that cannot be, ContextError if they do not fit.
    """
    check_prompt(ids, model, cache)
    if prefill_step_size is None:
        prefill_step_size = CPU_PREFILL_STEP_SIZE if kernels.on_cpu() else GPU_PREFILL_STEP_SIZE
    if prefill_step_size < 1:
        raise OptionError(f"prefill_step_size is {prefill_step_size}; it must be at least 1")
    report = on_prefill or (lambda done, total: None)
    for start in range(0, len(ids), prefill_step_size):
        report(start, len(ids))
        step = ids[start : start + prefill_step_size]

        def on_block(n_blocks: int, start: int = start, n: int = len(step)) -> None:
            n_before, n_done = (n * k // (model.args.n_layers + 1) for k in (n_blocks - 1, n_blocks))
            if n_done > n_before:  # of a short prompt several blocks make one token
                report(start + n_done, len(ids))

        hidden = model.hidden(mx.array([step]), cache, on_block)
        mx.eval([hidden, *(c.keys for c in cache), *(c.values for c in cache)])  # one step's activations at a time
    report(len(ids), len(ids))
    return model.logits(hidden[:, -1:])[0, -1]  # only the last position pays for the head


def generate_step(
    prompt: Sequence[int],
    model: Mistral,
    *,
    cache: list[RollingBufferCache] | None = None,
    history: Sequence[int] = (),
    sampler: Choose | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    prefill_step_size: int | None = None,
    on_prefill: OnPrefill | None = None,
    on_prompt: OnPrompt | None = None,
    logits: mx.array | None = None,
) -> Iterator[int]:
    """Yield up to `max_tokens` ids that continue the ids `prompt`, stop ids included and not obeyed.

    The prompt continues what `cache` holds, which is `history` to the repetition penalty. A yielded id enters the
    cache when the next one is asked for. With the `logits` after the prompt, `cache` must hold the prompt already.

    Raises OptionError for an empty prompt or an impossible limit, ContextError if the prompt does not fit.
    """
    cache = make_cache(model.args) if cache is None else cache
    sampler = sampler or Sampler()
    if max_tokens < 1:
        raise OptionError(f"max_tokens is {max_tokens}; it must be at least 1")
    prompt = [int(token) for token in prompt]
    seen = [*history, *prompt]
    if logits is None:
        logits = prefill(model, prompt, cache, prefill_step_size=prefill_step_size, on_prefill=on_prefill)
    if on_prompt is not None:
        on_prompt(logits)
    for n_yielded in range(1, max_tokens + 1):
        mx.eval(logits)
        seen.append(sampler(logits, seen))
        yield seen[-1]
        if n_yielded == max_tokens or context_left(model, cache) == 0:
            return
        logits = model(mx.array([[seen[-1]]]), cache)[0, -1]


def stream_generate(
    model: Mistral,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    cache: list[RollingBufferCache] | None = None,
    history: Sequence[int] = (),
    sampler: Sampler | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    stop: Sequence[str] = (),
    prefill_step_size: int | None = None,
    on_prefill: OnPrefill | None = None,
    on_prompt: OnPrompt | None = None,
    logits: mx.array | None = None,
    continues: bool | None = None,
    n_logprobs: int | None = None,
) -> Iterator[GenerationResponse]:
    """Yield the text that follows `prompt`, piece by piece, up to a stop id, a string of `stop`, or a limit.

    Stop ids are those of the config, the generation config and the tokenizer together. Neither they nor the stop
    strings are part of the text, nor is a character that a limit cuts in two. `continues` keeps the leading space that
    joins the text to the prompt; by default when the prompt is a string. `n_logprobs` asks for the log probability of
    each token and of its `n_logprobs` most likely alternatives; `on_prompt` and `logits` are those of `generate_step`,
    by which `stream_samples` evaluates a prompt once.

    Raises OptionError for an empty prompt or an impossible limit, ContextError if the prompt does not fit.
    """
    cache = make_cache(model.args) if cache is None else cache
    if isinstance(sampler, Sampler):
        sampler = sampler.bound(tokenizer)
    is_start = cache[0].offset == 0  # a text that goes on has its bos already
    ids = tokenizer.encode(prompt, bos=tokenizer.add_bos and is_start) if isinstance(prompt, str) else list(prompt)
    continues = isinstance(prompt, str) if continues is None else continues
    text = _TextStream(tokenizer.detokenizer(continues=continues), stop)
    stop_ids = model.args.eos_token_ids | tokenizer.eos_ids
    n_new = 0 if logits is not None else len(ids)
    progress = _Progress(prompt_tokens=cache[0].offset + n_new, cached_tokens=cache[0].offset)
    sampler = sampler or Sampler()
    recorder = None if n_logprobs is None else LogprobRecorder(sampler, n_logprobs)
    for token in generate_step(
        ids,
        model,
        cache=cache,
        history=history,
        sampler=recorder or sampler,
        max_tokens=max_tokens,
        prefill_step_size=prefill_step_size,
        on_prefill=on_prefill,
        on_prompt=on_prompt,
        logits=logits,
    ):
        progress.tick()
        piece = "" if token in stop_ids else text.add(token)
        reason: str | None = None
        if token in stop_ids or text.stopped:
            reason = "stop"
        elif progress.generation_tokens == max_tokens:
            reason = "length"
        elif context_left(model, cache) == 0:
            reason = "context"
        last = None if recorder is None else recorder.last
        if reason:
            piece += text.finish(cut=reason != "stop")
        yield progress.response(piece, token, reason, last)
        if reason:
            return


def generate(
    model: Mistral,
    tokenizer: Tokenizer,
    prompt: str | Sequence[int],
    *,
    sampler: Sampler | None = None,
    max_tokens: int = DEFAULT_MAX_TOKENS,
    stop: Sequence[str] = (),
) -> str:
    """Return the whole text that follows `prompt`; see `stream_generate`."""
    responses = stream_generate(model, tokenizer, prompt, sampler=sampler, max_tokens=max_tokens, stop=stop)
    return "".join(response.text for response in responses)


def context_left(model: Mistral, cache: list[RollingBufferCache]) -> int | None:
    """Return how many more tokens the model can take; None if every layer has a window, which knows no end."""
    limit = model.args.context_limit
    return None if limit is None else max(0, limit - cache[0].offset)


def check_prompt(prompt: Sequence[int], model: Mistral, cache: list[RollingBufferCache] | None = None) -> None:
    """Raise OptionError or ContextError unless the ids `prompt` can follow what `cache` holds."""
    if len(prompt) == 0:
        raise OptionError("the prompt is empty; give at least one token")
    if not 0 <= min(prompt) <= max(prompt) < model.args.vocab_size:
        raise OptionError(f"a prompt id is outside the vocabulary of {model.args.vocab_size} tokens")
    offset = cache[0].offset if cache else 0
    if cache and any(layer.offset != offset or layer.reserved != offset for layer in cache):
        raise OptionError("the cache was left in the middle of a step; make a new one")
    limit = model.args.context_limit
    if limit is not None and offset + len(prompt) > limit:
        raise ContextError(
            f"the input has {offset + len(prompt)} tokens, the model's context {limit}; shorten the input"
        )


class _TextStream:
    """Ids to text, ending before the first stop string; what may be the beginning of one is held back."""

    def __init__(self, detokenizer: StreamingDetokenizer, stop: Sequence[str]) -> None:
        if "" in stop:
            raise OptionError("a stop string is empty; give at least one character")
        self.stopped = False
        self._detokenizer, self._stop, self._held = detokenizer, stop, ""

    def add(self, token: int) -> str:
        return self._release(self._detokenizer.add(token))

    def finish(self, *, cut: bool) -> str:
        """Return the text still held back; nothing after a stop string, and no half character if it was `cut` off."""
        if self.stopped:
            return ""
        return self._release(self._detokenizer.flush(cut=cut)) + ("" if self.stopped else self._held)

    def _release(self, text: str) -> str:
        self._held += text
        places = [place for place in map(self._held.find, self._stop) if place >= 0]
        self.stopped = bool(places)
        end = min(places) if places else len(self._held) - self._n_doubtful()
        released, self._held = self._held[:end], self._held[end:]
        return released

    def _n_doubtful(self) -> int:
        """How many characters at the end may be the beginning of a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        lengths = range(min(longest, len(self._held)), 0, -1)
        return next((n for n in lengths if any(s.startswith(self._held[-n:]) for s in self._stop)), 0)


@dataclass
class _Progress:
    """Counts and times of one generation."""

    prompt_tokens: int
    cached_tokens: int
    generation_tokens: int = 0
    started: float = field(default_factory=time.perf_counter)
    first: float = 0.0  # when the first token was chosen
    last: float = 0.0

    def tick(self) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.generation_tokens += 1

    def response(
        self, text: str, token: int, finish_reason: str | None, logprobs: TokenLogprobs | None
    ) -> GenerationResponse:
        ttft_s = self.first - self.started
        return GenerationResponse(
            text=text,
            token=token,
            finish_reason=finish_reason,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            generation_tokens=self.generation_tokens,
            prompt_tps=(self.prompt_tokens - self.cached_tokens) / ttft_s,
            # The first token came with the prompt.
            generation_tps=(self.generation_tokens - 1) / (self.last - self.first) if self.last > self.first else 0.0,
            ttft_s=ttft_s,
            peak_memory_gb=peak_memory() / 1e9,
            logprobs=logprobs,
        )

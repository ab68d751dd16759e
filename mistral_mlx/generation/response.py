"""What a stream yields: a piece of text with the counts and times of its answer."""

import time
from dataclasses import dataclass, field

from mistral_mlx.kernels.memory import peak_memory
from mistral_mlx.sampling.logprobs import TokenLogprobs

from .channels import Parts
from .decode import Decoded
from .drafts import Drafts


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
    reasoning: str = ""  # a piece of the reasoning, which is no part of the text
    reasoning_tokens: int = 0  # those of generation_tokens that are reasoning, its marks included
    drafted_tokens: int = 0  # proposed so far, see drafts.py
    accepted_tokens: int = 0  # those of them that became part of the answer


@dataclass
class Meter:
    """Counts and times of one generation."""

    prompt_tokens: int
    cached_tokens: int
    generation_tokens: int = 0
    started: float = field(default_factory=time.perf_counter)
    drafts: Drafts | None = None
    first: float = 0.0  # when the first token was chosen
    last: float = 0.0

    def tick(self) -> None:
        """Note that a token was chosen."""
        self.last = time.perf_counter()
        self.first = self.first or self.last
        self.generation_tokens += 1

    def response(
        self, decoded: Decoded, piece: Parts, finish_reason: str | None, reasoning_tokens: int
    ) -> GenerationResponse:
        """Return what is known after the last token."""
        ttft_s = self.first - self.started
        return GenerationResponse(
            text=piece.text,
            token=decoded.token,
            finish_reason=finish_reason,
            prompt_tokens=self.prompt_tokens,
            cached_tokens=self.cached_tokens,
            generation_tokens=self.generation_tokens,
            prompt_tps=(self.prompt_tokens - self.cached_tokens) / ttft_s,
            # The first token came with the prompt.
            generation_tps=(self.generation_tokens - 1) / (self.last - self.first) if self.last > self.first else 0.0,
            ttft_s=ttft_s,
            peak_memory_gb=peak_memory() / 1e9,
            logprobs=decoded.logprobs,
            reasoning=piece.reasoning,
            reasoning_tokens=reasoning_tokens,
            drafted_tokens=self.drafts.n_drafted if self.drafts else 0,
            accepted_tokens=self.drafts.n_accepted if self.drafts else 0,
        )

"""How long a prompt may be, and how much of it is evaluated at a time."""

from collections.abc import Sequence

from mistral_mlx.errors import ContextError, OptionError, counted
from mistral_mlx.model.args import ModelArgs

GPU_PREFILL_STEP_SIZE = 512  # bounds the memory of a step
CPU_PREFILL_STEP_SIZE = 256  # as fast as any larger; a block of a 7B, which an interrupt waits for, takes half a second


def check_prompt(ids: Sequence[int], args: ModelArgs, position: int = 0) -> None:
    """Raise OptionError or ContextError unless the prompt `ids` can begin at `position` of a model's context."""
    if len(ids) == 0:
        raise OptionError("the prompt is empty; give at least one token")
    if not 0 <= min(ids) <= max(ids) < args.vocab_size:
        raise OptionError(f"a prompt id is outside the vocabulary of {args.vocab_size:,} tokens")
    limit = args.context_limit
    if limit is not None and position + len(ids) > limit:
        raise ContextError(f"the input has {counted(position + len(ids), 'token')}, the model's context {limit:,}")

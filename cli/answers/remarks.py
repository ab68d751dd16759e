"""Remarks about an answer that several commands print."""

from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.errors import counted
from mistral_mlx.generation.response import GenerationResponse


def untrained_position(n_tokens: int, n_trained: int) -> str:
    """Return the remark that a text is longer than those the model was trained on."""
    return f"position {n_tokens:,} is past the {n_trained:,} that the model was trained for"


def statistics(last: GenerationResponse, seed: int, reason: str, n_from_disk: int = 0) -> str:
    """Return the counts, speeds and memory of an answer in one line."""
    drafts = (
        f"{last.accepted_tokens:,} of {counted(last.drafted_tokens, 'drafted token')} accepted, "
        if last.drafted_tokens
        else ""
    )
    from_disk = f", {n_from_disk:,} of them from the disk" if n_from_disk else ""
    thought = f" ({last.reasoning_tokens:,} reasoning)" if last.reasoning_tokens else ""
    return (
        f"prompt {counted(last.prompt_tokens, 'token')} ({last.cached_tokens:,} cached{from_disk}) "
        f"{last.prompt_tps:.1f} tok/s, "
        f"answer {counted(last.generation_tokens, 'token')}{thought} {last.generation_tps:.1f} tok/s ({reason}), "
        f"{drafts}peak memory {gigabytes(1e9 * last.peak_memory_gb)}, seed {seed}, "
        f"first token after {last.ttft_s:.2f} s"
    )

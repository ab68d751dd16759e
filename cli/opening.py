"""Opening a model for a command: the device, the memory it takes, then the weights and the tokenizer."""

from collections.abc import Mapping
from pathlib import Path

import mlx.core as mx

from mistral_mlx.cache import cache_nbytes
from mistral_mlx.errors import ModelError, OptionError
from mistral_mlx.folder import ModelFolder
from mistral_mlx.kernels import activation_dtype
from mistral_mlx.loading import inspect_model, load
from mistral_mlx.memory import available_memory
from mistral_mlx.model import Mistral
from mistral_mlx.sampling import Sampler
from mistral_mlx.tensor_files import TensorEntry
from mistral_mlx.tokenizer import Tokenizer

from .terminal import note

BUFFER_CACHE_BYTES = 512_000_000  # freed buffers that MLX may keep; without a bound a long chat keeps all it ever had
CHAT_TOKENS = 4096  # what a conversation is taken to need at least, when the window or the context is larger


def use_device(name: str) -> None:
    """Make `name`, one of auto, cpu and gpu, the device of all that follows. Raises OptionError."""
    if name not in ("auto", "cpu", "gpu"):
        raise OptionError(f"--device is {name!r}; it must be auto, cpu or gpu")
    if name == "gpu" and not mx.metal.is_available():
        raise OptionError("--device gpu needs Apple silicon; this machine has no Metal device")
    if name != "auto":
        mx.set_default_device(mx.Device(mx.cpu if name == "cpu" else mx.gpu))


def new_sampler(
    temperature: float, top_p: float, top_k: int, min_p: float, repetition_penalty: float, seed: int | None
) -> Sampler:
    """Return the sampler the options ask for; made before the model is opened, so that a slip costs no wait."""
    return Sampler(
        temperature=temperature,
        top_p=top_p,
        top_k=top_k,
        min_p=min_p,
        repetition_penalty=repetition_penalty,
        seed=seed,
    )


def open_model(path: Path, *, force: bool, quiet: bool) -> tuple[Mistral, Tokenizer]:
    """Return the model and tokenizer at `path`.

    Raises ModelError if they do not fit into memory, unless `force` says to try all the same.
    """
    needed, available = memory_needed(ModelFolder(path)), available_memory()
    if available is not None and needed > 0.9 * available:
        text = f"the model needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are available"
        if needed > available and not force:
            raise ModelError(f"{text}; convert it to fewer bits, or add --force")
        if not quiet:
            note(text)
    mx.set_cache_limit(BUFFER_CACHE_BYTES)
    return load(path)


def memory_needed(folder: ModelFolder) -> int:
    """Return the bytes of the weights, and of the cache for a conversation."""
    args, entries = inspect_model(folder)
    return sum(entry.nbytes for entry in entries.values()) + cache_nbytes(
        args, min(CHAT_TOKENS, args.max_position_embeddings), itemsize=cache_itemsize(entries)
    )


def cache_itemsize(entries: Mapping[str, TensorEntry]) -> int:
    """Return the bytes of a cached number: keys and values have the dtype of the activations."""
    stored = entries.get("model.embed_tokens.scales") or entries["model.embed_tokens.weight"]
    return activation_dtype({"F32": mx.float32, "BF16": mx.bfloat16}.get(stored.dtype, mx.float16)).size

"""Opens a model for a command: sets what computes, checks the memory, loads."""

from dataclasses import asdict
from pathlib import Path

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.distributed.launched import launched
from mistral_mlx.errors import ModelError, OptionError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.generation.drafts import MAX_DRAFT, Drafter
from mistral_mlx.kernels.memory import available_memory
from mistral_mlx.model.cache import cache_nbytes
from mistral_mlx.model.cache_options import DEFAULT, CacheOptions
from mistral_mlx.model.loading import (
    Inspected,
    fitting_tokenizer,
    inspect_model,
    load,
    load_model,
    memory_needed,
    remarks,
)
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.tokenizer.choose import Tokenizer

from .registry import first_time, resolve

BUFFER_CACHE_BYTES = 512_000_000  # freed buffers that MLX may keep; without a limit a long chat keeps all of them
CHAT_TOKENS = 4096  # the length of a conversation whose cache must fit into memory
MAX_THREADS = 1024
NOT_SHARED = "--pipeline has no effect here; no other processes share the model (docs/machines.md)"
MAX_PARALLEL, DEFAULT_PARALLEL = 256, 16


def use_machine(device: str, threads: int, notes: Notes, *, exact: bool = False) -> None:
    """Compute on `device`, with `threads` threads and exactly or not from now on. Raises OptionError."""
    _use_device(device)
    _use_threads(threads, notes)
    kernels.set_exact(exact)
    mx.set_cache_limit(BUFFER_CACHE_BYTES)


def _use_device(name: str) -> None:
    """Compute on the device `name` from now on: auto, cpu or gpu. Raises OptionError."""
    if name not in ("auto", "cpu", "gpu"):
        raise OptionError(f"--device is {name!r}; it must be auto, cpu or gpu")
    if name == "gpu" and not mx.is_available(mx.Device(mx.gpu)):
        raise OptionError("--device gpu needs a GPU that MLX can use; MLX finds none here, take --device cpu")
    if name != "auto":
        mx.set_default_device(mx.Device(mx.cpu if name == "cpu" else mx.gpu))


def _use_threads(n: int, notes: Notes) -> None:
    """Compute with `n` threads from now on; 0 means one per fast physical core. Raises OptionError."""
    if not 0 <= n <= MAX_THREADS:
        raise OptionError(f"--threads is {n}; it must be 1 to {MAX_THREADS}, or 0 for one per fast physical core")
    try:
        effective = kernels.set_threads(n)
    except RuntimeError as error:
        raise OptionError(f"--threads is {n}, but the system cannot start so many; take fewer") from error
    if n and not effective:
        notes.say(f"--threads has no effect here; the kernels are {kernels.names()}")


def check_parallel(n: int) -> None:
    """Raise OptionError if `n` answers cannot be decoded together; 0 is as many as the memory has room for."""
    if not 0 <= n <= MAX_PARALLEL:
        raise OptionError(f"--parallel is {n}; it must be 1 to {MAX_PARALLEL}, or 0 for as many as there is room")


def parallel_for_memory(n: int, model: Mistral, n_tokens: int) -> int:
    """Return how many answers of `n_tokens` are decoded together, `n` or, for 0, as many as the memory has room for."""
    available = available_memory()
    if n or available is None:
        return n or DEFAULT_PARALLEL
    itemsize = kernels.cache_dtype(model.model.layers[0].self_attn.k_proj.dtype).size
    room = available // 2 // cache_nbytes(model.args, n_tokens, itemsize=itemsize)
    return max(1, min(DEFAULT_PARALLEL, int(room)))


def open_model(
    path: Path,
    notes: Notes,
    n_tokens: int = CHAT_TOKENS,
    *,
    cache: CacheOptions = DEFAULT,
    ignore_memory: bool,
    pipeline: bool = False,
) -> tuple[Mistral, Tokenizer]:
    """Return the model and tokenizer at `path`, to be used with a cache of `n_tokens`.

    Processes that were launched together share it, by `pipeline` or not. Raises ModelError if weights and cache do not
    fit into memory, unless `ignore_memory`; OptionError if the `cache` is none for this model, GroupError if the
    processes cannot share it.
    """
    inspected = inspect_model(ModelFolder(path))
    tokenizer = None if launched() is None else fitting_tokenizer(inspected)  # before others load their shares
    model = _opened(inspected, notes, n_tokens, cache, ignore_memory=ignore_memory, pipeline=pipeline)
    return model, tokenizer or fitting_tokenizer(inspected)


def open_weights(
    path: Path,
    notes: Notes,
    n_tokens: int,
    *,
    cache: CacheOptions = DEFAULT,
    ignore_memory: bool,
    pipeline: bool = False,
) -> Mistral:
    """Return the model at `path` as `open_model` does, without its tokenizer."""
    inspected = inspect_model(ModelFolder(path))
    return _opened(inspected, notes, n_tokens, cache, ignore_memory=ignore_memory, pipeline=pipeline)


def open_drafter(
    name: str | None, tokenizer: Tokenizer, notes: Notes, *, draft: int = MAX_DRAFT, ignore_memory: bool
) -> Drafter | None:
    """Return the model `name` as what drafts for one with `tokenizer`; None where nothing drafts, or for no name.

    Raises OptionError if its tokens are others.
    """
    if name is None:
        return None
    if draft == 0 or not kernels.uses_native():
        why = "--draft is 0" if draft == 0 else f"the kernels are {kernels.names()}"
        notes.say(f"--draft-model has no effect here; {why}")
        return None
    from mistral_mlx.generation.draft_model import DraftModel
    from mistral_mlx.session.fingerprint import have_same_tokens

    inspected = inspect_model(ModelFolder(resolve(name)))
    _check(inspected, notes, CHAT_TOKENS, DEFAULT, ignore_memory=ignore_memory)
    model, own = load(inspected)
    if not have_same_tokens(own, tokenizer):
        raise OptionError(f"--draft-model is {shown(name)}, whose tokens are others than the model's; choose another")
    return DraftModel(model, tokenizer.vocab_size)


def _opened(
    inspected: Inspected, notes: Notes, n_tokens: int, cache: CacheOptions, *, ignore_memory: bool, pipeline: bool
) -> Mistral:
    """Return the model, alone or shared."""
    if launched() is not None:
        return _shared(inspected, notes, n_tokens, cache, ignore_memory=ignore_memory, pipeline=pipeline)
    if pipeline:
        notes.say(NOT_SHARED)
    _check(inspected, notes, n_tokens, cache, ignore_memory=ignore_memory)
    return load_model(inspected, **asdict(cache))


def _shared(
    inspected: Inspected, notes: Notes, n_tokens: int, cache: CacheOptions, *, ignore_memory: bool, pipeline: bool
) -> Mistral:
    """Return the model that the launched processes share."""
    from mistral_mlx.distributed.agree import Wanted

    from .sharing import open_shared

    me = launched()
    assert me is not None
    _say_remarks(inspected, notes, cache)
    exact = kernels.on_cpu() and kernels.exact()
    wanted = Wanted(pipeline, **asdict(cache), exact=exact, n_tokens=n_tokens, ignore_memory=ignore_memory)
    return open_shared(me, inspected, wanted, notes)


def _check(inspected: Inspected, notes: Notes, n_tokens: int, cache: CacheOptions, *, ignore_memory: bool) -> None:
    """Compare the memory needed with what is available; say what a user should know."""
    needed, available = memory_needed(inspected, n_tokens, cache), available_memory()
    if available is not None and needed > 0.9 * available:
        text = f"the model needs {gigabytes(needed)} of memory, {gigabytes(available)} are available"
        if needed > available and not ignore_memory:
            raise ModelError(f"{text}; convert it to fewer bits, or add --ignore-memory")
        notes.say(text)
    _say_remarks(inspected, notes, cache)


def _say_remarks(inspected: Inspected, notes: Notes, cache: CacheOptions) -> None:
    for said in remarks(inspected):
        notes.say(said)
    if cache.window is not None:
        notes.say(f"the model sees {cache.sight}; it forgets what is older")
    if (remark := kernels.note()) and not notes.quiet and first_time("slow-kernels"):
        notes.say(f"{remark} (shown once; 'mistral-mlx info' names the kernels)")

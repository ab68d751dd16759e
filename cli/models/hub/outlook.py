"""What a model on a hub would take and whether it runs, from its page and its small files."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.convert.sources.support import TENSOR, Support, of_huggingface, of_native
from mistral_mlx.errors import counted
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import INDEX_NAME, weight_map
from mistral_mlx.kernels.memory import available_memory
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.cache import cache_nbytes

from .choice import WEIGHTS
from .repository import RemoteFile, Repository

N_TOKENS = 4096  # the conversation whose cache is counted
BITS_AT_4 = 4.5  # of a weight: 4 bits in groups of 64, with a scale and a bias of 16 bits each
VERDICTS = {"runs": "runs as it is", "convert": "has to be converted first", "unknown": "its config was not fetched"}


@dataclass(frozen=True)
class Outlook:
    """What is known before the weights are fetched. Sizes are in bytes."""

    repository: str
    commit: str
    licence: str
    gated: bool
    files: dict[str, int]  # names and sizes
    nbytes: int
    nbytes_here: int  # of weights, from earlier tries
    verdict: str  # runs, convert, refused or unknown
    why: str  # it does not run as it is
    memory_needed: int | None  # as it is, with the cache of a conversation
    memory_at_4_bits: int | None  # if `convert` can make that of it
    memory_available: int | None
    disk_free: int

    def as_dict(self) -> dict[str, object]:
        """Return the facts for JSON."""
        return asdict(self)

    def lines(self) -> Iterator[str]:
        """Yield what a person should know before the weights are fetched."""
        yield f"{self.repository} at {self.commit[:12]}, licence {self.licence}{', gated' if self.gated else ''}"
        here = f", {gigabytes(self.nbytes_here)} of it here already" if self.nbytes_here else ""
        yield f"  size    {gigabytes(self.nbytes)} in {counted(len(self.files), 'file')}{here}"
        yield f"  model   {VERDICTS.get(self.verdict, 'is not supported')}{f': {self.why}' if self.why else ''}"
        if self.memory_needed is not None:
            yield f"  memory  {self._memory()}"
        yield f"  disk    {gigabytes(self.nbytes - self.nbytes_here)} needed, {gigabytes(self.disk_free)} free"

    def _memory(self) -> str:
        assert self.memory_needed is not None
        available = self.memory_available
        fits = "" if available is None else " (does not fit)" if self.memory_needed > available else " (fits)"
        small = self.memory_at_4_bits
        at_4_bits = f", about {gigabytes(small)} at 4 bits" if small and small < 0.9 * self.memory_needed else ""
        here = "" if available is None else f"; {gigabytes(available)} available"
        return f"{gigabytes(self.memory_needed)} as it is{fits}{at_4_bits}{here}"


def outlook(
    repository: Repository, files: Sequence[RemoteFile], folder: ModelFolder, nbytes_here: int, disk_free: int
) -> Outlook:
    """Return what is known of the `files` of a model, whose small ones are in `folder`. Raises ModelError."""
    support = _support(folder)
    args = support.args if support else None
    verdict, why = (support.verdict, support.why) if support else ("unknown", "")
    if any(file.name.endswith(".gguf") for file in files):
        verdict, why = "convert", "it is a GGUF file"
    nbytes_of_weights = sum(file.nbytes for file in files if WEIGHTS.fullmatch(file.name))
    return Outlook(
        repository=str(repository.id),
        commit=repository.commit,
        licence=repository.licence,
        gated=repository.is_gated,
        files={file.name: file.nbytes for file in files},
        nbytes=sum(file.nbytes for file in files),
        nbytes_here=nbytes_here,
        verdict=verdict,
        why=why,
        memory_needed=nbytes_of_weights + _cache(args) if args else None,
        memory_at_4_bits=_at_4_bits(args) + _cache(args) if args and not args.quantization else None,
        memory_available=available_memory(),
        disk_free=disk_free,
    )


def _support(folder: ModelFolder) -> Support | None:
    if folder.has("config.json"):
        tensors = list(weight_map(folder)) if folder.has(INDEX_NAME) else []
        return of_huggingface(folder.json("config.json"), tensors or (TENSOR,))
    return of_native(folder.json("params.json")) if folder.has("params.json") else None


def _cache(args: ModelArgs) -> int:
    return cache_nbytes(args, N_TOKENS, itemsize=2)


def _at_4_bits(args: ModelArgs) -> int:
    shapes = expected_shapes(args)
    if args.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return round(sum(math.prod(shape) for shape in shapes.values()) * BITS_AT_4 / 8)

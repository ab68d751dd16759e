"""What the weights of a source are multiplied with, measured on a text the user gives."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
import numpy.typing as npt

from mistral_mlx.convert.sources.source import Source
from mistral_mlx.convert.sources.weights import HEAD
from mistral_mlx.errors import CheckpointError, OptionError, counted, shown
from mistral_mlx.measure.evaluation import Window, windows

from .streamed import Streamed
from .text import read_text, source_tokenizer

CONTEXT = 512  # tokens of a window, where the model was trained for so many
N_WINDOWS = 32  # 16,384 tokens
WIDTH = 4096  # columns of a part of X^T X: 64 MB

Floats = npt.NDArray[np.float32]
Spans = list[tuple[int, int]]  # of columns
BlocksDone = Callable[[int, int], None]  # blocks done, and those there are


class Inputs:
    """The inputs X ``[n, K]`` of a product: their squares, and X^T X in parts along its diagonal."""

    def __init__(self, columns: int) -> None:
        n_parts = -(-columns // WIDTH)
        width = -(-columns // n_parts // 128) * 128  # no group of weights lies in two parts
        self.spans: Spans = [(start, min(start + width, columns)) for start in range(0, columns, width)]
        self.parts = [np.zeros((stop - start, stop - start), np.float32) for start, stop in self.spans]
        self.factors: dict[int, Floats] = {}  # what `compensate` makes of each part, once for all modules that share it

    def add(self, x: Floats) -> None:
        """Add ``[n, K]`` inputs."""
        for part, (start, stop) in zip(self.parts, self.spans, strict=True):
            columns = np.ascontiguousarray(x[:, start:stop])
            part += columns.T @ columns

    @property
    def squares(self) -> Floats:
        """The sum of the squares of each input, ``[K]``."""
        return np.concatenate([np.diag(part) for part in self.parts])


def calibration_windows(source: Source, path: Path, limit: int = N_WINDOWS) -> list[Window]:
    """Return at most `limit` windows, spread evenly over the text file at `path`, in the source's own ids.

    Raises OptionError if the text is not one or too short, ModelError if the source has no tokenizer.
    """
    text, tokenizer = read_text(path), source_tokenizer(source)
    ids = tokenizer.encode(text)
    context = min(CONTEXT, source.args.max_position_embeddings)
    if len(ids) < context:
        raise OptionError(
            f"the calibration text {shown(str(path))} has {counted(len(ids), 'token')}; at least {context} are needed, "
            f"and {limit * context:,} are used"
        )
    found = windows(ids, context=context, bos_id=tokenizer.bos_id if tokenizer.add_bos else None)
    chosen = np.linspace(0, len(found) - 1, min(len(found), limit)).round().astype(int)
    return [found[i] for i in chosen]


def block_inputs(source: Source, texts: Sequence[Window], progress: BlocksDone) -> Iterator[Mapping[str, Inputs]]:
    """Yield the inputs of the modules of each block by their paths, and at last those of a head that is not tied.

    The experts of a mixture have their own, by `blocks.expert_path`: X of the tokens that chose them. One that none
    chose is left out.
    """
    model = Streamed(source)
    states = model.embed(texts)
    for layer in range(model.args.n_layers):
        seen: dict[tuple[str, ...], Inputs] = {}

        def observe(modules: tuple[str, ...], x: mx.array, seen: dict[tuple[str, ...], Inputs] = seen) -> None:
            inputs = seen.setdefault(modules, Inputs(x.shape[-1]))
            inputs.add(np.asarray(x.astype(mx.float32)).reshape(-1, x.shape[-1]))

        states = model.run(layer, model.block(layer), states, observe)
        if not all(np.isfinite(inputs.squares).all() for inputs in seen.values()):
            raise CheckpointError(f"block {layer} of the source gives NaN or infinity for the text; it may be damaged")
        progress(layer + 1, model.args.n_layers)
        yield {f"model.layers.{layer}.{name}": inputs for modules, inputs in seen.items() for name in modules}
    if model.head.name == HEAD:
        norm, last = model.norm(), Inputs(model.args.dim)
        for x in states:
            last.add(np.asarray(norm(x).astype(mx.float32))[0])
        yield {model.head.path: last}

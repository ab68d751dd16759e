"""What each of several processes has of a model: a share of every block, or some of the blocks whole.

A share of a block has some of the key heads with their query heads, and some of the hidden units of the feed-forward
(of each expert, in a mixture): rows of q, k, v, gate and up, columns of o and down (Shoeybi et al., Megatron-LM, 2019,
arXiv:1909.08053, section 3). The embedding, the last norm and the head are those of rank 0.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

from mistral_mlx.errors import OptionError
from mistral_mlx.model import blocks
from mistral_mlx.model.args import ModelArgs

Range = tuple[int, int]  # from the first to before the last

_LAYER = re.compile(r"model\.layers\.(\d{1,9})\.", re.ASCII)
OTHER_WAY = "take --pipeline, which splits the layers"


@dataclass(frozen=True)
class Share:
    """What one process has of the model that `whole` describes."""

    whole: ModelArgs
    rank: int
    size: int
    splits_blocks: bool  # or it has some of the blocks whole
    layers: range
    heads: Range  # key heads
    hidden: Range

    @property
    def args(self) -> ModelArgs:
        """The sizes of the modules that this process has, and their packing; its layers begin with 0."""
        whole, first, last = self.whole, self.layers.start, self.layers.stop
        quantization, n_kv_heads = whole.quantization, self.heads[1] - self.heads[0]
        if quantization is not None:
            own = {self.own_name(path): packing for path, packing in quantization.per_module.items()}
            quantization = replace(quantization, per_module={path: p for path, p in own.items() if path is not None})
        return replace(
            whole,
            n_layers=len(self.layers),
            n_kv_heads=n_kv_heads,
            n_heads=whole.n_heads // whole.n_kv_heads * n_kv_heads,
            hidden_dim=self.hidden[1] - self.hidden[0],
            sliding_window=whole.sliding_window[first:last],
            config_windows=None if whole.config_windows is None else whole.config_windows[first:last],
            quantization=quantization,
        )

    def own_name(self, name: str) -> str | None:
        """Return the name of a tensor or module of the model among those of this process; None if it has none."""
        layer = layer_of(name)
        if layer is None:
            return name if self.rank == 0 else None
        if layer not in self.layers:
            return None
        return name.replace(f"model.layers.{layer}.", f"model.layers.{layer - self.layers.start}.", 1)

    def ranges(self, module: blocks.Module) -> list[Range | None]:
        """Return which part of each dimension of a module's weight this process has; None is all of it."""
        n_queries = self.whole.n_heads // self.whole.n_kv_heads
        known = {"keys": self._rows(1), "queries": self._rows(n_queries), "hidden": self.hidden}
        return [known.get(word) if self.splits_blocks else None for word in module.shape]

    def _rows(self, heads_per_key_head: int) -> Range:
        per_head = heads_per_key_head * self.whole.head_dim
        return self.heads[0] * per_head, self.heads[1] * per_head


def shares_of_blocks(args: ModelArgs, size: int, groups: Mapping[str, int]) -> list[Share]:
    """Return the shares of `size` processes that split every block.

    `groups` has the sizes of the groups of inputs by the path of a module in its block, where it is packed: columns are
    split between groups. Raises OptionError if the model cannot be split so.
    """
    if args.n_kv_heads % size:
        raise OptionError(
            f"the {args.n_kv_heads} key heads of this model cannot be split over {size} processes; {OTHER_WAY}"
        )
    n_inputs = args.n_heads // size * args.head_dim
    if n_inputs % _unit("queries", groups):
        raise OptionError(
            f"{n_inputs} inputs of o_proj for each of {size} processes are no whole number of groups; {OTHER_WAY}"
        )
    unit = _unit("hidden", groups)
    n_units, n_kv_heads = args.hidden_dim // unit, args.n_kv_heads // size
    if args.hidden_dim % unit or n_units < size:
        raise OptionError(
            f"the {args.hidden_dim} hidden units of this model, in groups of {unit}, cannot be split over {size} "
            f"processes; {OTHER_WAY}"
        )
    ends = [rank * n_units // size * unit for rank in range(size + 1)]
    heads = [(rank * n_kv_heads, (rank + 1) * n_kv_heads) for rank in range(size)]
    layers = range(args.n_layers)
    return [Share(args, r, size, True, layers, heads[r], (ends[r], ends[r + 1])) for r in range(size)]


def shares_of_layers(args: ModelArgs, memory: Sequence[int], nbytes: Sequence[int], n_more: int) -> list[Share]:
    """Return the shares of processes with so much `memory` each, which have whole layers.

    `nbytes` has the bytes of each layer, and `n_more` those that rank 0 has beside its layers. Everybody gets a part
    of the layers as large as its part of all memory, and one layer at least. Raises OptionError for too few layers.
    """
    size = len(memory)
    if args.n_layers < size:
        raise OptionError(f"the {args.n_layers} layers of this model cannot be split over {size} processes; take fewer")
    room = [max(1, n - (n_more if rank == 0 else 0)) for rank, n in enumerate(memory)]
    ends, done = [0], [0, *accumulate(nbytes)]
    for rank, part in enumerate(accumulate(room[:-1])):
        wanted = done[-1] * part / sum(room)
        nearest = min(range(len(done)), key=lambda i: abs(done[i] - wanted))
        ends.append(min(max(nearest, ends[-1] + 1), args.n_layers - (size - 1 - rank)))
    ends.append(args.n_layers)
    heads, hidden = (0, args.n_kv_heads), (0, args.hidden_dim)
    return [Share(args, r, size, False, range(ends[r], ends[r + 1]), heads, hidden) for r in range(size)]


def layer_of(name: str) -> int | None:
    """Return the layer of a tensor or module; None outside the layers. In config.json a name can be any text."""
    match = _LAYER.match(name)
    return int(match[1]) if match else None


def _unit(word: str, groups: Mapping[str, int]) -> int:
    """Return how many inputs of this name lie together in the groups of all modules that read them."""
    every = (*blocks.matrices(0), *blocks.matrices(1))
    return math.lcm(*(groups.get(module.path, 1) for module in every if module.shape[-1] == word))

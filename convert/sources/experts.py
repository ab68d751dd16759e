"""The experts of a mixture: the layouts in which files hold them, and the tensor of all of them that a model has.

On the way from one to the other each expert's matrices are tensors of their own, under `blocks.expert_path`, so that
whatever is done with a stored matrix is done with these:

    model.layers.L.block_sparse_moe.experts.E.w1 (gate), w3 (up), w2 (down)    Hugging Face
    model.layers.L.mlp.experts.gate_up_proj [E, 2I, D], down_proj [E, D, I]    transformers 5
    model.layers.L.block_sparse_moe.switch_mlp.gate_proj.weight [E, I, D]      MLX
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mistral_mlx.convert.storage.joined import Joined
from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.blocks import EXPERTS, ROUTER, expert_path, stacked_path
from mistral_mlx.model.expert_files import OWN_NAMES

from .source import SourceTensor

MIXTURE = re.compile(r"(model\.layers\.(0|[1-9]\d{0,8})\.)(?:block_sparse_moe|mlp)\.(.+)", re.ASCII)
ONE = re.compile(r"experts\.(0|[1-9]\d{0,2})\.(w[123])\.(\w+)", re.ASCII)
STACKED = re.compile(r"switch_mlp\.(gate_proj|up_proj|down_proj)\.(weight|scales|biases)", re.ASCII)
FUSED = {"experts.gate_up_proj": ("gate_proj", "up_proj"), "experts.down_proj": ("down_proj",)}
NAMES = {own: module for module, own in OWN_NAMES.items()}


def apart(entries: Mapping[str, TensorEntry], args: ModelArgs) -> dict[str, TensorEntry]:
    """Return the tensors of a file with each expert's matrices apart; as they are, if `args` has no experts.

    Only the tensors of its layers are divided: a hostile file may name others, and each would become hundreds.

    Raises CheckpointError if a tensor of all experts cannot be divided, or a matrix is there twice.
    """
    if not args.n_experts:
        return dict(entries)
    found: dict[str, TensorEntry] = {}
    for name, entry in entries.items():
        for own_name, part in _apart(name, entry, args):
            if own_name in found:
                raise CheckpointError(
                    f"tensors {shown(found[own_name].name)} and {shown(entry.name)} hold the same expert's weights"
                )
            found[own_name] = part
    return found


def _apart(name: str, entry: TensorEntry, args: ModelArgs) -> Iterator[tuple[str, TensorEntry]]:
    """Yield what becomes of a tensor: itself, renamed, or the matrices in it."""
    match, n_experts = MIXTURE.fullmatch(name), args.n_experts
    layer, rest = (match[1], match[3]) if match and int(match[2]) < args.n_layers else ("", "")
    if rest.startswith("gate."):
        yield f"{layer}{ROUTER}.{rest.removeprefix('gate.')}", entry
    elif one := ONE.fullmatch(rest):
        yield f"{expert_path(f'{layer}{EXPERTS}.{NAMES[one[2]]}', int(one[1]))}.{one[3]}", entry
    elif stacked := STACKED.fullmatch(rest):
        for e, part in enumerate(_divided(entry, n_experts, 1)):
            yield f"{expert_path(f'{layer}{EXPERTS}.{stacked[1]}', e)}.{stacked[2]}", part
    elif modules := FUSED.get(rest):
        for i, part in enumerate(_divided(entry, n_experts, len(modules))):
            e, which = divmod(i, len(modules))
            yield f"{expert_path(f'{layer}{EXPERTS}.{modules[which]}', e)}.weight", part
    else:
        yield name, entry


def _divided(entry: TensorEntry, n_experts: int, n_modules: int) -> list[TensorEntry]:
    """Return the matrices in a tensor of all experts. The rows of an expert are those of `n_modules` matrices."""
    if len(entry.shape) != 3 or entry.shape[0] != n_experts or entry.shape[1] % n_modules or not entry.nbytes:
        of = f"{n_modules} matrices" if n_modules > 1 else "a matrix"
        raise CheckpointError(
            f"tensor {shown(entry.name)} of shape {list(entry.shape)} does not hold {of} for each of {n_experts} "
            "experts"
        )
    count = n_experts * n_modules
    shape, nbytes = (entry.shape[1] // n_modules, entry.shape[2]), entry.nbytes // count
    return [replace(entry, shape=shape, start=entry.start + i * nbytes, nbytes=nbytes) for i in range(count)]


def joined(tensors: Mapping[str, SourceTensor], args: ModelArgs) -> dict[str, SourceTensor]:
    """Return `tensors` with the matrices of all experts of a module as one, ``[experts, out, in]``.

    Raises CheckpointError if an expert is missing, one too many, or of another shape than the first.
    """
    found: dict[str, SourceTensor] = {}
    stacks: dict[str, dict[str, SourceTensor]] = defaultdict(dict)
    for name, tensor in tensors.items():
        path = stacked_path(tensor.path)
        if path != tensor.path and args.n_experts:
            stacks[path][tensor.path] = tensor
        else:
            found[name] = tensor
    return found | {f"{path}.weight": _joined(path, parts, args.n_experts) for path, parts in stacks.items()}


def _joined(path: str, parts: Mapping[str, SourceTensor], n_experts: int) -> SourceTensor:
    paths = [expert_path(path, e) for e in range(n_experts)]
    if missing := [own for own in paths if own not in parts]:
        more = f", and so are {len(missing) - 1} others" if missing[1:] else ""
        raise CheckpointError(f"{_shown(missing[0])} is missing{more}; there should be {n_experts} experts")
    if extra := set(parts).difference(paths):
        raise CheckpointError(f"{_shown(min(extra))} is one too many; there should be {n_experts} experts")
    first = parts[paths[0]].shape
    for own in paths:
        shape = parts[own].shape
        if len(shape) != 2 or shape != first:
            raise CheckpointError(
                f"{_shown(own)} has shape {list(shape)}, "
                + ("which is no matrix" if len(shape) != 2 else f"and that of expert 0 has {list(first)}")
            )
    storages = tuple(parts[own].storage for own in paths)
    return SourceTensor(f"{path}.weight", (n_experts, *first), Joined(storages))


def _shown(path: str) -> str:
    """Return words for an expert's matrix: names of several layouts become one `path`."""
    layer, _, rest = path.partition(f".{EXPERTS}.")
    module, _, e = rest.partition(".")
    return f"{OWN_NAMES[module]} ({module}) of expert {e} in {layer}"

"""Loads what a process has of a model: only its rows and columns are read, or copied out of their file."""

from collections.abc import Mapping

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import ModelError
from mistral_mlx.kernels.dtypes import MLX_DTYPES
from mistral_mlx.model import blocks
from mistral_mlx.model.args import expected_shapes
from mistral_mlx.model.expert_files import joined, parts
from mistral_mlx.model.loading import Inspected, stored_dtype
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.model.weights import held, held_nbytes, quantize_modules, read_tensors

from .share import Share, layer_of


def groups_of(model: Inspected) -> dict[str, int]:
    """Return the largest size of the groups of inputs by the path of a module in its block, where one is packed."""
    found = dict[str, int]()
    quantization = model.args.quantization
    for layer in range(model.args.n_layers):
        for module in blocks.matrices(model.args.n_experts):
            path = blocks.module_path(layer, module)
            if quantization is not None and f"{path}.scales" in model.entries:
                found[module.path] = max(found.get(module.path, 1), quantization.of(path).group_size)
    return found


def nbytes_of(model: Inspected) -> tuple[list[int], int]:
    """Return the bytes that the weights of each layer take in memory, and those of what lies outside the layers."""
    of_layers, outside = [0] * model.args.n_layers, 0
    for name, entry in model.entries.items():
        layer, nbytes = layer_of(name), held_nbytes(name, entry, model.args)
        if layer is None:
            outside += nbytes
        else:
            of_layers[layer] += nbytes
    return of_layers, outside


def share_nbytes(model: Inspected, share: Share) -> int:
    """Return about how many bytes the weights of a share take in memory."""
    of_layers, outside = nbytes_of(model)
    own = sum(of_layers[layer] for layer in share.layers)
    return (own // share.size if share.splits_blocks else own) + (outside if share.rank == 0 else 0)


def load_share(model: Inspected, share: Share) -> Mistral:
    """Return the modules of a share with their weights; only that of rank 0 has an embedding, a norm and a head.

    Raises ModelError if a file cannot be read, or a tensor cannot be split.
    """
    wanted = {name: entry for name, entry in model.entries.items() if share.own_name(name) is not None}
    arrays = read_tensors(wanted, all=False)
    if share.splits_blocks:
        _cut(arrays, _places(model, share), share)
    args, modules = share.args, _modules(share, wanted)
    own = {share.own_name(name) or name: array for name, array in arrays.items()}
    del arrays
    modules.load_weights(list(joined(held(own, args), expected_shapes(args)).items()), strict=True)
    if not kernels.on_cpu():
        modules.set_dtype(MLX_DTYPES[stored_dtype(model.entries)])
    mx.eval(modules.parameters())
    return modules


def _modules(share: Share, wanted: Mapping[str, object]) -> Mistral:
    """Return the modules of a share, packed where their tensors are; of followers without those of rank 0."""
    rank = share.rank if share.splits_blocks else None
    modules = Mistral(share.args, tied=f"{blocks.HEAD}.weight" not in wanted, rank=rank)
    if share.rank != 0:
        del modules.model.embed_tokens, modules.model.norm
    quantize_modules(modules, [share.own_name(name) or name for name in wanted])
    return modules


def _places(model: Inspected, share: Share) -> dict[str, tuple[blocks.Module, int]]:
    """Return of each tensor of the blocks its module, and how many of the first axes it lacks: the experts, apart."""
    shapes = expected_shapes(model.args)
    found = dict[str, tuple[blocks.Module, int]]()
    for layer in share.layers:
        for module in blocks.matrices(model.args.n_experts):
            path = blocks.module_path(layer, module)
            shape = shapes[f"{path}.weight"]
            for name, own in parts(f"{path}.weight", shape, model.entries).items():
                if own not in (shape, shape[1:]):
                    raise ModelError(
                        "gate and up of the experts lie together in one tensor, which cannot be split; convert the "
                        "folder first: mistral-mlx convert FOLDER"
                    )
                found[name] = module, len(shape) - len(own)
            found |= {f"{path}.{part}": (module, 0) for part in ("scales", "biases")}
    return found


def _cut(arrays: dict[str, mx.array], places: Mapping[str, tuple[blocks.Module, int]], share: Share) -> None:
    """Put in the place of each array of the blocks the part of it that belongs to the share."""
    whole = share.whole
    sizes = {"queries": whole.n_heads * whole.head_dim, "keys": whole.n_kv_heads * whole.head_dim}
    sizes["hidden"] = whole.hidden_dim
    for name in [name for name in arrays if name in places]:
        module, n_lacking = places[name]
        array = arrays.pop(name)
        for axis, (word, own) in enumerate(zip(module.shape, share.ranges(module), strict=True)):
            if own is not None:  # an axis of codes or groups has fewer items than inputs
                size = array.shape[axis - n_lacking]
                first, last = (n * size // sizes[word] for n in own)
                array = array[(slice(None),) * (axis - n_lacking) + (slice(first, last),)]
        if not kernels.maps_files():
            array = mx.contiguous(array)  # a copy, one at a time; what it is taken out of is let go
        mx.eval(array)
        arrays[name] = array

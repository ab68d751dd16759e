"""An adapter folder, as PEFT or mlx-lm writes it, merged into a source: what it changes; reads configs and headers.

The folder is as untrusted as a model's. Whatever would change the result and is not done is refused by its name.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from os import PathLike

from mistral_mlx.convert.sources.entries import plain_tensor
from mistral_mlx.convert.sources.source import Source, SourceTensor
from mistral_mlx.convert.sources.tokenizer_files import find_files, largest_vocabulary
from mistral_mlx.convert.sources.weights import HEAD
from mistral_mlx.convert.storage.low_rank import LowRank, Updated
from mistral_mlx.convert.storage.rows import FLOAT_KINDS
from mistral_mlx.errors import CheckpointError, ConversionError, ModelError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import TensorEntry, read_header

from . import mlx, peft
from .changes import CONFIG_NAME, EMBEDDING, Changes

PEFT_NAME, MLX_NAME = "adapter_model.safetensors", "adapters.safetensors"
PICKLES = ("adapter_model.bin", "adapter_model.pt", "adapters.npz")
OF_EXPERTS = re.compile(r"\.(experts|switch_mlp)\.")
MAX_NAME = 200  # characters of a tensor's name; real ones have 80


def with_adapter(source: Source, path: str | PathLike[str]) -> Source:
    """Return `source` with the adapter in the folder `path` to be merged.

    Raises ModelError if the adapter is damaged, asks for what is not supported, or belongs to another model.
    """
    try:
        folder = ModelFolder(path)
        changes = _read(folder, source)
        notes = [_summary(changes), *_left_out(changes), *_check_tokenizer(folder, source)]
    except OSError as error:
        raise ModelError(f"{shown(str(path), limit=200)} cannot be read ({error.strerror or error})") from error
    _check_tied(changes, source)
    tensors = dict(source.tensors)
    for name, update in changes.updates.items():
        tensor = _target(source, name, "an update")
        tensors[name] = replace(tensor, storage=Updated(tensor.storage, _checked(update, tensor)))
    for name, entry in changes.whole.items():
        tensors[name] = _replaced(entry, _target(source, name, "a weight"))
    return replace(source, tensors=tensors, notes=(*source.notes, *notes), adapted=True)


def _read(folder: ModelFolder, source: Source) -> Changes:
    present = [name for name in (PEFT_NAME, MLX_NAME) if folder.has(name)]
    if not present:
        pickle = next((name for name in PICKLES if folder.has(name)), None)
        if pickle:
            raise CheckpointError(
                f"{shown(str(folder.path))} holds its weights as {pickle}, which can run code and is never opened; "
                "save the adapter again as safetensors"
            )
        raise CheckpointError(f"no adapter in {shown(str(folder.path))}: neither {PEFT_NAME} nor {MLX_NAME} is there")
    if len(present) > 1:
        raise CheckpointError(f"{shown(str(folder.path))} holds both {PEFT_NAME} and {MLX_NAME}; remove one")
    config, entries = folder.json(CONFIG_NAME), read_header(folder.file(present[0]))
    if not entries:
        raise CheckpointError(f"{present[0]} holds no tensor")
    if (longest := max(entries, key=len)) and len(longest) > MAX_NAME:
        raise CheckpointError(f"the adapter's tensor {shown(longest)} has a name that no model's has")
    if source.args.n_experts and (expert := next(filter(OF_EXPERTS.search, entries), None)):
        raise ConversionError(
            f"the adapter changes experts ({shown(expert)}), which cannot be merged; attention and routers can be"
        )
    read = peft.read if present[0] == PEFT_NAME else mlx.read
    changes = read(config, entries, source)
    if not (changes.updates or changes.whole):
        raise CheckpointError(
            f"the adapter changes only {' and '.join(changes.beside)}, and the text model is converted alone"
        )
    return changes


def _left_out(changes: Changes) -> Iterator[str]:
    if names := " and ".join(changes.beside):
        yield f"what the adapter changes in {names} is left out: the text model is converted alone"


def _target(source: Source, name: str, what: str) -> SourceTensor:
    tensor = source.tensors.get(name)
    if tensor is None:
        raise CheckpointError(f"the adapter has {what} for {shown(name)}, which the source does not have")
    return tensor


def _checked(update: LowRank, tensor: SourceTensor) -> LowRank:
    """Return `update` if it is one of `tensor`."""
    factors = [update.left, update.right, *([update.magnitude] if update.magnitude else [])]
    for factor in factors:
        if factor.entry.dtype not in FLOAT_KINDS:
            raise CheckpointError(
                f"the adapter's tensor {shown(factor.entry.name)} is stored as {factor.entry.dtype}; "
                f"only {', '.join(FLOAT_KINDS)} can be merged"
            )
    left, right = update.left.shape, update.right.shape
    magnitude = (*tensor.shape[:1],) if update.magnitude is None else update.magnitude.shape
    if len(left) != 2 or len(right) != 2 or left[1] != right[0] or (left[0], right[1]) != tensor.shape:
        raise CheckpointError(
            f"the adapter's {shown(update.left.entry.name)} {list(update.left.entry.shape)} and "
            f"{list(update.right.entry.shape)} do not fit {tensor.name} {list(tensor.shape)}: it is another model's"
        )
    if magnitude != tensor.shape[:1]:
        raise CheckpointError(
            f"the adapter's magnitudes of {tensor.name} have shape {list(magnitude)}; {[tensor.shape[0]]} is expected"
        )
    return update


def _replaced(entry: TensorEntry, tensor: SourceTensor) -> SourceTensor:
    if entry.shape != tensor.shape:
        raise CheckpointError(
            f"the adapter's tensor {shown(entry.name)} has shape {list(entry.shape)}, the source's "
            f"{list(tensor.shape)}; new tokens and other sizes are not supported"
        )
    return plain_tensor(entry, tensor.name)


def _check_tied(changes: Changes, source: Source) -> None:
    changed = f"{EMBEDDING}.weight" in {*changes.updates, *changes.whole}
    if changed and changes.apart and HEAD not in source.tensors:
        raise ConversionError(
            f"the adapter changes {EMBEDDING} alone, but the head of the source is tied to it; that cannot be merged"
        )


def _check_tokenizer(folder: ModelFolder, source: Source) -> list[str]:
    ids = largest_vocabulary(find_files(folder))
    if ids is None:
        return []
    if source.tokenizer_ids is not None and ids > source.tokenizer_ids:
        raise ConversionError(
            f"the adapter brings a tokenizer of {ids:,} tokens, the source has {source.tokenizer_ids:,}; "
            "new tokens are not supported"
        )
    return ["the adapter's own tokenizer and chat template are left out: those of the source are kept"]


def _summary(changes: Changes) -> str:
    kinds = {"DoRA" if update.magnitude else "LoRA" for update in changes.updates.values()}
    ranks = sorted({update.right.shape[0] for update in changes.updates.values()})
    parts = []
    if ranks:
        parts.append(f"{len(changes.updates)} by {' and '.join(sorted(kinds))} of rank {', '.join(map(str, ranks))}")
    if changes.whole:
        parts.append(f"{len(changes.whole)} as a whole")
    trained = f"; it says that it was trained on {shown(changes.base)}" if isinstance(changes.base, str) else ""
    return f"the adapter changes {' and '.join(parts)}{trained}"

"""The tensors of an AutoAWQ or AutoGPTQ checkpoint, checked against what config.json says of them."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from mistral_mlx.convert.storage.gptq import AWQ, GPTQ, GPTQ_V2, Gptq
from mistral_mlx.convert.storage.rows import FLOAT_KINDS
from mistral_mlx.errors import CheckpointError, ConfigError, ConversionError, shown
from mistral_mlx.files.keys import Keys
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.model.args import MAX_SIZE
from mistral_mlx.model.packing import Packing

from .entries import plain_tensor, stored
from .source import SourceTensor

PARTS = ("qweight", "qzeros", "scales", "g_idx")
METHODS = ("awq", "gptq")
FORMATS = {("awq", "gemm"): AWQ, ("gptq", "gptq"): GPTQ, ("gptq", "gptq_v2"): GPTQ_V2}
BITS = {AWQ: (4,), GPTQ: (2, 4, 8), GPTQ_V2: (2, 4, 8)}
REFUSED = ("is_marlin_format", "dynamic")  # another layout; other bits for some modules

Rule = Mapping[str, object]
Entries = Mapping[str, TensorEntry]


class _Layout(NamedTuple):
    kind: str
    bits: int
    group_size: int  # -1: a row is one group
    has_order: bool  # groups need not lie side by side


def grouped_tensors(entries: Entries, rule: Rule, notes: list[str]) -> dict[str, SourceTensor]:
    """Return all tensors, each packed weight being one.

    Raises ConfigError, ConversionError or CheckpointError if config.json asks for what is not supported, or a tensor
    is missing, left over, or of another shape than the others imply.
    """
    layout = _layout(rule)
    paths = {name.removesuffix(".qweight") for name in entries if name.endswith(".qweight")}
    if not paths:
        raise CheckpointError(f"config.json says {layout.kind}, but no tensor is a qweight")
    tensors: dict[str, SourceTensor] = {}
    for name, entry in entries.items():
        path, _, part = name.rpartition(".")
        if part in PARTS and path not in paths:
            raise CheckpointError(f"tensor {shown(name)} has no qweight beside it")
        if part == "qweight":
            if f"{path}.weight" in entries:
                raise CheckpointError(f"{shown(path)} has both a weight and a qweight")
            tensors[f"{path}.weight"] = _grouped(path, entries, layout)
        elif part == "bias" and path in paths:
            _check_bias(entry)
        elif part not in PARTS:
            tensors[name] = plain_tensor(entry, name)
    if any(name.endswith(".bias") and name.rpartition(".")[0] in paths for name in entries):
        notes.append("the biases are left out: all of them are zero")
    if any(isinstance(tensor.storage, Gptq) and tensor.storage.order for tensor in tensors.values()):
        notes.append("groups are scattered over the rows (desc_act), which MLX's form does not know")
    return tensors


def _layout(rule: Rule) -> _Layout:
    method, key = rule["quant_method"], "config.json: quantization_config"
    form = str(rule.get("version" if method == "awq" else "checkpoint_format") or "").lower()
    kind = FORMATS.get((str(method), form or {"awq": "gemm", "gptq": "gptq"}[str(method)]))
    if kind is None:
        known = ", ".join(repr(name) for of, name in FORMATS if of == method)
        raise ConversionError(f"{key} has the {shown(method)} format {shown(repr(form))}; supported are {known}")
    for name in REFUSED:
        if rule.get(name):
            raise ConversionError(f"{key}.{name} is {shown(rule[name])}, which this program does not implement")
    bits = rule.get("bits", rule.get("w_bit", 4))
    if type(bits) is not int or bits not in BITS[kind]:
        raise ConversionError(f"{key}.bits is {shown(repr(bits))}; {kind} of {BITS[kind]} bits can be converted")
    group_size = rule.get("group_size", rule.get("q_group_size", 128))
    if type(group_size) is not int or (group_size < 1 and group_size != -1):
        raise Keys(rule, f"{key}.", ConfigError).bad("group_size", group_size, "a whole number from 1, or -1,")
    return _Layout(kind, bits, group_size, bool(rule.get("desc_act")) and method == "gptq")


def _grouped(path: str, entries: Entries, layout: _Layout) -> SourceTensor:
    kind, bits, _, has_order = layout
    qweight = _part(path, "qweight", entries, ("I32", "U32"))
    per_word = 32 // bits
    n_in, n_out = qweight.shape if len(qweight.shape) == 2 else (0, 0)
    n_in, n_out = (n_in, n_out * per_word) if kind == AWQ else (n_in * per_word, n_out)
    if not (0 < n_in <= MAX_SIZE and 0 < n_out <= MAX_SIZE):
        raise CheckpointError(f"tensor {shown(qweight.name)} has the impossible shape {list(qweight.shape)}")
    group_size = n_in if layout.group_size == -1 else layout.group_size
    n_groups = -(-n_in // group_size)
    qzeros = _part(path, "qzeros", entries, ("I32", "U32"), (n_groups, n_out // per_word))
    scales = _part(path, "scales", entries, FLOAT_KINDS, (n_groups, n_out))
    if n_out % per_word:
        raise CheckpointError(f"tensor {shown(qweight.name)} has {n_out} columns, no multiple of {per_word}")
    order = entries.get(f"{path}.g_idx")
    if order is None and has_order:
        raise CheckpointError(f"tensor {shown(path + '.g_idx')} is missing, and config.json says desc_act")
    scattered = order is not None and kind != AWQ and _is_scattered(order, n_in, n_groups, group_size)
    if not scattered and n_in % group_size:
        raise CheckpointError(f"the {n_in} rows of {shown(path)} are no multiple of the group size {group_size}")
    sizes = [size for size in (128, 64, 32) if group_size % size == 0 and not scattered]
    name = f"{path}.weight"
    storage = Gptq(
        qweight=stored(qweight, name),
        qzeros=stored(qzeros, name),
        scales=stored(scales, name),
        order=stored(order, name) if order is not None and scattered else None,
        kind=kind,
        bits=bits,
        shape=(n_out, n_in),
        packing=Packing(bits, sizes[0]) if sizes else None,
    )
    return SourceTensor(name, (n_out, n_in), storage)


def _part(
    path: str, part: str, entries: Entries, dtypes: tuple[str, ...], shape: tuple[int, ...] | None = None
) -> TensorEntry:
    entry = entries.get(f"{path}.{part}")
    if entry is None:
        raise CheckpointError(f"tensor {shown(f'{path}.{part}')} is missing")
    if entry.dtype not in dtypes or (shape is not None and entry.shape != shape):
        what = f"{dtypes[0]} {list(shape)}" if shape else dtypes[0]
        raise CheckpointError(
            f"tensor {shown(entry.name)} is {entry.dtype} {list(entry.shape)}; the qweight and config.json imply {what}"
        )
    return entry


def _is_scattered(order: TensorEntry, n_in: int, n_groups: int, group_size: int) -> bool:
    """Whether the groups do not lie side by side; that decides what can be done with the tensor."""
    if order.dtype != "I32" or order.shape != (n_in,):
        raise CheckpointError(
            f"tensor {shown(order.name)} is {order.dtype} {list(order.shape)}; the qweight implies I32 [{n_in}]"
        )
    found = np.fromfile(order.file, "<i4", n_in, offset=order.start)
    if found.min() < 0 or found.max() >= n_groups:
        raise CheckpointError(
            f"tensor {shown(order.name)} names groups from {found.min()} to {found.max()}; there are {n_groups}"
        )
    return not np.array_equal(found, np.arange(n_in) // min(group_size, n_in))


def _check_bias(entry: TensorEntry) -> None:
    """Raise CheckpointError unless all is zero: old versions of AutoGPTQ wrote biases where there are none."""
    is_vector = len(entry.shape) == 1 and entry.shape[0] <= MAX_SIZE
    if not is_vector or np.fromfile(entry.file, np.uint8, entry.nbytes, offset=entry.start).any():
        raise CheckpointError(f"tensor {shown(entry.name)} is a bias, which a Mistral model does not have")

"""From a model folder to a model: every name, shape and dtype is checked against the config before a weight is read.

Plain checkpoints (float32, bfloat16, float16) and folders quantized in any mode of MLX load alike: a module is packed
if its ``scales`` are in the files, and only then. On a CPU the float modes are unpacked (`kernels.float_modes`).
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import CheckpointError, ModelError, TokenizerError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import TensorEntry, find_tensors, native_message
from mistral_mlx.kernels.dtypes import MLX_DTYPES
from mistral_mlx.tokenizer.choose import Tokenizer, load_tokenizer

from . import known
from .args import ModelArgs, expected_shapes
from .cache import cache_nbytes
from .cache_options import DEFAULT, CacheOptions
from .expert_files import joined, parts
from .mistral import Mistral
from .packing import Packing, QuantizationArgs
from .weights import held, held_nbytes, quantize_modules, read_tensors
from .wrappers import parts_beside, text_names

FLOAT_DTYPES = tuple(MLX_DTYPES)
IGNORED_SUFFIXES = (".rotary_emb.inv_freq",)  # old exports store what is computed from rope_theta

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class Inspected:
    """A model folder whose config and headers were read and checked; no weight was read."""

    folder: ModelFolder
    args: ModelArgs
    entries: Mapping[str, TensorEntry]  # under the model's names
    left_out: Sequence[str]  # the parts beside the text model


def load(
    path: StrPath | Inspected, *, window: int | None = None, sinks: int = 0, kv_bits: int = 16
) -> tuple[Mistral, Tokenizer]:
    """Return the model in the folder at `path`, which may have been inspected already, and its tokenizer.

    The options are those of `load_model`. Raises ModelError (ConfigError, CheckpointError or TokenizerError) if one
    of the two cannot be used.
    """
    inspected = _inspected(path)
    model = load_model(inspected, window=window, sinks=sinks, kv_bits=kv_bits)
    return model, fitting_tokenizer(inspected)


def fitting_tokenizer(inspected: Inspected) -> Tokenizer:
    """Return the tokenizer of a folder. Raises TokenizerError if it is damaged, or no one for the model."""
    tokenizer = load_tokenizer(inspected.folder)
    if tokenizer.rows_needed() > inspected.args.vocab_size:
        raise TokenizerError(
            f"the tokenizer in {shown(str(inspected.folder.path))} has {tokenizer.vocab_size:,} tokens, the model only "
            f"{inspected.args.vocab_size:,}; they do not belong together"
        )
    return tokenizer


def load_model(path: StrPath | Inspected, *, window: int | None = None, sinks: int = 0, kv_bits: int = 16) -> Mistral:
    """Return the model in the folder at `path`, which may have been inspected already; no tokenizer is needed.

    Its caches keep the last `window` tokens, where the model sees more, and the first `sinks` tokens beside them; keys
    and values are held in `kv_bits`, 16 or 8. Raises ModelError (ConfigError or CheckpointError) if the folder is
    missing, damaged or not supported, OptionError if the options do not fit the model.
    """
    inspected = _inspected(path)
    args, entries = CacheOptions(window, sinks, kv_bits).applied(inspected.args), inspected.entries
    model = Mistral(args, tied="lm_head.weight" not in entries)
    quantize_modules(model, entries)
    weights = joined(held(read_tensors(entries), args), expected_shapes(args))
    model.load_weights(list(weights.items()), strict=True)
    if not kernels.on_cpu():
        model.set_dtype(MLX_DTYPES[stored_dtype(entries)])  # one foreign tensor would move all that follows to float32
    mx.eval(model.parameters())  # what is not mapped is read here, not in the first forward pass
    return model


def inspect_model(folder: ModelFolder) -> Inspected:
    """Return the hyper-parameters and the tensors of a folder, checked. Raises ConfigError or CheckpointError."""
    args, found = read_args(folder), find_tensors(folder)
    entries = _named(found)
    _check(entries, args)
    return Inspected(folder, args, entries, parts_beside(found))


def _inspected(path: StrPath | Inspected) -> Inspected:
    return path if isinstance(path, Inspected) else inspect_model(ModelFolder(path))


def stored_dtype(entries: Mapping[str, TensorEntry]) -> str:
    """Return the dtype of a model, F32, BF16 or F16: that of its embedding, or of the embedding's scales."""
    dtype = (entries.get("model.embed_tokens.scales") or entries["model.embed_tokens.weight"]).dtype
    return "BF16" if dtype == "U8" else dtype  # what MLX gives the weights of float modes


def cache_itemsize(entries: Mapping[str, TensorEntry]) -> int:
    """Return the bytes of a cached number of 16 `kv_bits`."""
    return kernels.cache_dtype(MLX_DTYPES[stored_dtype(entries)]).size


def memory_needed(model: Inspected, n_tokens: int, options: CacheOptions = DEFAULT) -> int:
    """Return the bytes of the weights of a model and of a cache that has seen `n_tokens` tokens."""
    weights = sum(held_nbytes(name, entry, model.args) for name, entry in model.entries.items())
    return weights + cache_nbytes(options.applied(model.args), n_tokens, itemsize=cache_itemsize(model.entries))


def remarks(model: Inspected) -> list[str]:
    """Return what the user of a model should know before it runs, in sentences without a full stop."""
    said, parts = list(known.remarks(model.args)), model.left_out
    if parts:
        said.append(f"{' and '.join(parts)} {'is' if len(parts) == 1 else 'are'} left out: the text model runs alone")
    return said


def read_args(folder: ModelFolder) -> ModelArgs:
    """Return what ``config.json`` says, with the stop ids of ``generation_config.json`` added."""
    if folder.has("params.json") and not folder.has("config.json"):
        raise ModelError(native_message(folder, "params.json"))
    args = ModelArgs.from_config(folder.json("config.json"))
    if not folder.has("generation_config.json"):
        return args
    ids = folder.json("generation_config.json").get("eos_token_id")
    found = [i for i in (ids if isinstance(ids, list) else [ids]) if type(i) is int]
    return replace(args, eos_token_ids=args.eos_token_ids | set(found))


def _named(entries: dict[str, TensorEntry]) -> dict[str, TensorEntry]:
    """Return the text model's tensors under the names they have when it stands alone."""
    names = text_names(name for name in entries if not name.endswith(IGNORED_SUFFIXES))
    return {plain: entries[name] for plain, name in names.items()}


def _check(entries: dict[str, TensorEntry], args: ModelArgs) -> None:
    """Raise CheckpointError unless `entries` are exactly the tensors `args` implies."""
    expected = _expected_entries(entries, args)
    for name in sorted(entries.keys() - expected.keys()):
        raise CheckpointError(f"the checkpoint has the tensor {shown(name)}, which this model does not use")
    for name, (shape, dtypes) in expected.items():
        if name not in entries:
            raise CheckpointError(f"the checkpoint has no tensor {shown(name)}")
        entry = entries[name]
        if entry.shape != shape or entry.dtype not in dtypes:
            raise CheckpointError(
                f"tensor {shown(name)} is {entry.dtype} {list(entry.shape)}; config.json implies "
                f"{' or '.join(dtypes)} {list(shape)}"
            )


def _expected_entries(
    entries: dict[str, TensorEntry], args: ModelArgs
) -> dict[str, tuple[tuple[int, ...], tuple[str, ...]]]:
    """Return the shape and possible dtypes of every tensor, packed modules being those that have scales."""
    expected: dict[str, tuple[tuple[int, ...], tuple[str, ...]]] = {}
    for name, shape in expected_shapes(args).items():
        path = name.removesuffix(".weight")
        if path == "lm_head" and name not in entries:
            _check_tied(args)
        elif f"{path}.scales" in entries:
            packing = _packing(args.quantization, path, shape)
            *lines, columns = shape
            grouped = (*lines, columns // packing.group_size)
            expected[name] = ((*lines, columns * packing.bits // 32), ("U32",))
            if packing.mode == "affine":
                dtype = entries[f"{path}.scales"].dtype
                expected[f"{path}.scales"] = (grouped, FLOAT_DTYPES)
                expected[f"{path}.biases"] = (grouped, (dtype,))  # of the two together the kernels know one dtype
            else:
                expected[f"{path}.scales"] = (grouped, ("U8",))
        else:
            expected |= {part: (own, FLOAT_DTYPES) for part, own in parts(name, shape, entries).items()}
    return expected


def _check_tied(args: ModelArgs) -> None:
    if args.tie_word_embeddings is False:
        raise CheckpointError("the checkpoint has no tensor 'lm_head.weight', and config.json says it is not tied")


def _packing(quantization: QuantizationArgs | None, path: str, shape: tuple[int, ...]) -> Packing:
    if quantization is None:
        raise CheckpointError(f"{shown(path)} has scales, but config.json has no quantization")
    packing = quantization.of(path)
    if len(shape) < 2 or shape[-1] % packing.group_size:
        raise CheckpointError(
            f"{shown(path)} of shape {list(shape)} cannot be packed in groups of {packing.group_size}"
        )
    return packing

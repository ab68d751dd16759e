"""A GGUF file of the llama family as a checkpoint: names and row order as Hugging Face has them."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from mistral_mlx.convert.sources.entries import check_heads, ordered
from mistral_mlx.convert.sources.experts import joined
from mistral_mlx.convert.sources.source import Source, SourceTensor
from mistral_mlx.convert.storage.gguf import KINDS, Gguf
from mistral_mlx.convert.storage.plain import Plain
from mistral_mlx.convert.storage.rows import FLOAT_KINDS, Storage, Stored
from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.blocks import EXPERTS, ROUTER, expert_path

from .config import ROPE_FACTORS, Floats, config_of
from .header import GGUFHeader, GGUFTensor
from .split import read_parts
from .tokenizer import rebuild_tokenizer

GLOBAL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
BLOCK_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate_inp": ROUTER,
    "ffn_gate_exps": f"{EXPERTS}.gate_proj",  # of all experts
    "ffn_up_exps": f"{EXPERTS}.up_proj",
    "ffn_down_exps": f"{EXPERTS}.down_proj",
}
# Files from before April 2024 have a tensor for each expert.
EXPERT = re.compile(r"blk\.(0|[1-9]\d*)\.ffn_(gate|up|down)\.(0|[1-9]\d{0,2})\.weight", re.ASCII)
STACKED = "_exps.weight"
MAX_FACTORS_NBYTES = 1 << 20


def open_gguf(path: Path) -> Source:
    """Open the GGUF file at `path`.

    Raises CheckpointError or ConfigError if it is damaged, of another architecture, or asks for what is not supported.
    """
    parts = read_parts(path)
    metadata = parts[0][1].metadata
    notes: list[str] = []
    found = {tensor.name: tensor for _, header in parts for tensor in header.tensors}
    config = config_of(metadata, found, _rope_factors(parts, notes))
    args = ModelArgs.from_config(config)
    tensors: dict[str, SourceTensor] = {}
    for file, header in parts:
        for name, tensor in _named(header, args):
            if name in tensors:
                raise CheckpointError(f"tensor {shown(tensor.name)} is in the GGUF file twice")
            tensors[name] = _tensor(name, tensor, file, config)
    tokenizer = rebuild_tokenizer(metadata, notes)
    config |= tokenizer.ids
    return Source(
        path=path,
        config=config,
        args=ModelArgs.from_config(config),
        tensors=joined(tensors, args),
        files=tokenizer.files,
        tokenizer_ids=tokenizer.size,
        keeps_dtypes=True,  # norms are stored in float32 beside packed or half matrices
        notes=tuple(notes),
    )


def _named(header: GGUFHeader, args: ModelArgs) -> Iterator[tuple[str, GGUFTensor]]:
    """Yield the tensors under Hugging Face's names, the matrices of each expert in the model's layers apart."""
    for tensor in header.tensors:
        if tensor.name == ROPE_FACTORS:
            continue
        if tensor.kind not in (*FLOAT_KINDS, *KINDS):
            known = ", ".join((*FLOAT_KINDS, *KINDS))
            raise CheckpointError(
                f"tensor {shown(tensor.name)} is stored as {tensor.kind}; only {known} can be converted"
            )
        name = _hf_name(tensor.name)
        if not tensor.name.endswith(STACKED) or int(name.split(".")[2]) >= args.n_layers:
            yield name, tensor
            continue
        for e, part in enumerate(_divided(tensor, args.n_experts)):
            yield f"{expert_path(name.removesuffix('.weight'), e)}.weight", part


def _divided(tensor: GGUFTensor, n_experts: int) -> list[GGUFTensor]:
    """Return the matrices of each expert."""
    if len(tensor.shape) != 3 or tensor.shape[0] != n_experts:
        raise CheckpointError(
            f"tensor {shown(tensor.name)} of shape {list(tensor.shape)} does not hold a matrix for each of "
            f"{n_experts} experts"
        )
    nbytes = tensor.nbytes // n_experts
    shape = tensor.shape[1:]
    return [replace(tensor, shape=shape, start=tensor.start + e * nbytes, nbytes=nbytes) for e in range(n_experts)]


def _hf_name(name: str) -> str:
    if name in GLOBAL_NAMES:
        return GLOBAL_NAMES[name]
    if one := EXPERT.fullmatch(name):
        return f"model.layers.{one[1]}.{expert_path(f'{EXPERTS}.{one[2]}_proj', int(one[3]))}.weight"
    match = re.fullmatch(r"blk\.(0|[1-9]\d{0,8})\.(\w+)\.weight", name, re.ASCII)
    if match is None or match[2] not in BLOCK_NAMES:
        raise CheckpointError(
            f"tensor {shown(name)} has no place in a llama or Mistral model; the file cannot be converted"
        )
    return f"model.layers.{match[1]}.{BLOCK_NAMES[match[2]]}.weight"


def _tensor(name: str, tensor: GGUFTensor, path: Path, config: Mapping[str, object]) -> SourceTensor:
    head_dim = config["head_dim"] if name.endswith(("q_proj.weight", "k_proj.weight")) else None
    assert head_dim is None or isinstance(head_dim, int)
    check_heads(tensor.name, tensor.shape, head_dim)
    rows = tensor.shape[0] if len(tensor.shape) == 2 else 1
    array = Stored(name, path, tensor.start, rows, tensor.nbytes // rows)
    storage: Storage = Plain(array, tensor.kind) if tensor.kind in FLOAT_KINDS else Gguf(array, tensor.kind)
    return SourceTensor(name, tensor.shape, ordered(storage, head_dim))


def _rope_factors(parts: Sequence[tuple[Path, GGUFHeader]], notes: list[str]) -> Floats | None:
    """Return the numbers that divide the frequencies of rotary positions; None if they do nothing."""
    found = [(file, tensor) for file, header in parts for tensor in header.tensors if tensor.name == ROPE_FACTORS]
    if not found:
        return None
    file, tensor = found[0]
    if len(found) > 1 or tensor.kind != "F32" or tensor.nbytes > MAX_FACTORS_NBYTES:
        raise CheckpointError(f"tensor {ROPE_FACTORS} is no list of a frequency's factors in F32")
    factors = np.fromfile(file, "<f4", tensor.nbytes // 4, offset=tensor.start)
    if (factors == 1).all():
        notes.append(f"{ROPE_FACTORS} is left out: all its factors are 1")
        return None
    notes.append(f"{ROPE_FACTORS} is left out: it follows from rope_scaling in the target's config.json")
    return factors

"""The weights of a transformer block as a table: names, shapes, and which of them read the same input.

Names are those of HF transformers, and of mlx-lm for the experts of a mixture, which lie in one tensor. A dimension is
"dim", "hidden", "queries" (all heads), "keys" (all key heads) or "experts".
"""

import re
from typing import NamedTuple


class Module(NamedTuple):
    """A module of a block: a norm, a matrix ``[rows, columns]``, or one such matrix for each expert."""

    path: str  # below ``model.layers.N.``
    shape: tuple[str, ...]
    reads: str = ""  # modules with the same word here are products of the same input


ATTENTION = (
    Module("self_attn.q_proj", ("queries", "dim"), reads="attention input"),
    Module("self_attn.k_proj", ("keys", "dim"), reads="attention input"),
    Module("self_attn.v_proj", ("keys", "dim"), reads="attention input"),
    Module("self_attn.o_proj", ("dim", "queries"), reads="attention output"),
)
FEED_FORWARD = (
    Module("mlp.gate_proj", ("hidden", "dim"), reads="feed-forward input"),
    Module("mlp.up_proj", ("hidden", "dim"), reads="feed-forward input"),
    Module("mlp.down_proj", ("dim", "hidden"), reads="gated hidden layer"),
)
ROUTER, EXPERTS = "block_sparse_moe.gate", "block_sparse_moe.switch_mlp"
MIXTURE = (
    Module(ROUTER, ("experts", "dim"), reads="feed-forward input"),
    Module(f"{EXPERTS}.gate_proj", ("experts", "hidden", "dim"), reads="input of an expert"),
    Module(f"{EXPERTS}.up_proj", ("experts", "hidden", "dim"), reads="input of an expert"),
    Module(f"{EXPERTS}.down_proj", ("experts", "dim", "hidden"), reads="gated hidden layer of an expert"),
)
_EXPERT = re.compile(rf"(.*{re.escape(EXPERTS)}\.\w+)\.\d+", re.ASCII | re.DOTALL)
NORMS = (Module("input_layernorm", ("dim",)), Module("post_attention_layernorm", ("dim",)))

EMBEDDING, FINAL_NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"  # the modules outside the blocks


def matrices(n_experts: int) -> tuple[Module, ...]:
    """Return the matrices of a block in the order in which the native kernels take them; 0 experts: no mixture."""
    return ATTENTION + (MIXTURE if n_experts else FEED_FORWARD)


def block(n_experts: int) -> tuple[Module, ...]:
    """Return the modules of a block: the matrices, then the norms."""
    return matrices(n_experts) + NORMS


def module_path(layer: int, module: Module) -> str:
    """Return the path of a block's module in the whole model."""
    return f"model.layers.{layer}.{module.path}"


def expert_path(path: str, e: int) -> str:
    """Return the path by which one expert's part of the module at `path` is told apart."""
    return f"{path}.{e}"


def stacked_path(path: str) -> str:
    """Return the path of the module that `path` is an expert's part of, or `path` itself if it is none."""
    match = _EXPERT.fullmatch(path)
    return match[1] if match else path


def inputs(n_experts: int) -> list[tuple[str, ...]]:
    """Return the paths of the matrices of a block, those that read the same input together."""
    found = matrices(n_experts)
    words = dict.fromkeys(module.reads for module in found)
    return [tuple(module.path for module in found if module.reads == word) for word in words]

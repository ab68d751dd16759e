"""The weights of a transformer block as a table: names, shapes, and which of them read the same input.

Names are those of HF transformers. A dimension is "dim", "hidden", "queries" (all heads) or "keys" (all key heads).
"""

from typing import NamedTuple


class Module(NamedTuple):
    """A module of a block: a matrix ``[rows, columns]``, or a norm, which has no columns."""

    path: str  # below ``model.layers.N.``
    rows: str
    columns: str | None = None
    reads: str = ""  # modules with the same word here are products of the same input


# Matrices and norms in the order in which the native kernels take them.
MATRICES = (
    Module("self_attn.q_proj", "queries", "dim", reads="attention input"),
    Module("self_attn.k_proj", "keys", "dim", reads="attention input"),
    Module("self_attn.v_proj", "keys", "dim", reads="attention input"),
    Module("self_attn.o_proj", "dim", "queries", reads="attention output"),
    Module("mlp.gate_proj", "hidden", "dim", reads="feed-forward input"),
    Module("mlp.up_proj", "hidden", "dim", reads="feed-forward input"),
    Module("mlp.down_proj", "dim", "hidden", reads="gated hidden layer"),
)
NORMS = (Module("input_layernorm", "dim"), Module("post_attention_layernorm", "dim"))
BLOCK = MATRICES + NORMS

EMBEDDING, FINAL_NORM, HEAD = "model.embed_tokens", "model.norm", "lm_head"  # the modules outside the blocks


def module_path(layer: int, module: Module) -> str:
    """Return the path of a block's module in the whole model."""
    return f"model.layers.{layer}.{module.path}"


def inputs() -> list[tuple[str, ...]]:
    """Return the paths of the matrices of a block, those that read the same input together."""
    words = dict.fromkeys(module.reads for module in MATRICES)
    return [tuple(module.path for module in MATRICES if module.reads == word) for word in words]

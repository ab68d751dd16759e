"""Mistral's own layout as a checkpoint: params.json and consolidated*.safetensors, in Hugging Face's names and words.

Names, keys and defaults are those of mistral-inference (args.py, transformer.py, rope.py), keys it never knew those of
vLLM (transformers_utils/configs/mistral.py).
"""

import re
from collections.abc import Iterator, Mapping

from mistral_mlx.errors import CheckpointError, ConfigError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import TensorEntry, consolidated_files, find_tensors
from mistral_mlx.model.args import ModelArgs

from . import fp8
from .native_params import to_config
from .source import Source
from .tokenizer_files import find_files, largest_vocabulary

PARAMS_NAME = "params.json"
SINGLE_NATIVE_NAME = "consolidated.safetensors"

GLOBAL_MODULES = {"tok_embeddings": "model.embed_tokens", "norm": "model.norm", "output": "lm_head"}
BLOCK_MODULES = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w2": "mlp.down_proj",
    "feed_forward.w3": "mlp.up_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
ROTARY = (".q_proj.weight", ".k_proj.weight")  # rows 2i and 2i + 1 of a head turn together
VISION = ("vision_encoder.", "vision_language_adapter.", "patch_merger.", "pre_mm_projector_norm.")


def is_native(folder: ModelFolder) -> bool:
    """Whether `folder` has a file of this layout."""
    return folder.has(PARAMS_NAME) or any(name.endswith(".safetensors") for name in consolidated_files(folder))


def open_native(folder: ModelFolder) -> Source:
    """Open the checkpoint of Mistral's own layout in `folder`.

    Raises ModelError if a file is missing or damaged, or params.json asks for what is not supported.
    """
    entries = find_tensors(folder, SINGLE_NATIVE_NAME)
    params = folder.json(PARAMS_NAME)
    notes: list[str] = []
    named = dict(_named(entries, params, notes))
    if "model.embed_tokens.weight" not in named:
        raise CheckpointError("tensor tok_embeddings.weight is missing")
    config = to_config(params, dtype=named["model.embed_tokens.weight"].dtype, tied="lm_head.weight" not in named)
    rule, head_dim = params.get("quantization"), config["head_dim"]
    block = fp8.block_shape(rule, "params.json: quantization") if isinstance(rule, Mapping) and rule else None
    assert isinstance(head_dim, int)
    if "max_position_embeddings" not in params and "max_seq_len" not in params:
        notes.append(
            f"params.json does not say for how many positions the model was trained: "
            f"{config['max_position_embeddings']} are assumed, as max_position_embeddings in the target's config.json"
        )
    if any(p.suffix == ".gguf" for p in folder.path.iterdir()):
        notes.append("the folder holds a GGUF file too: the safetensors are converted")
    files = find_files(folder)
    return Source(
        path=folder.path,
        config=config,
        args=ModelArgs.from_config(config),
        tensors=fp8.scaled_tensors(named, block, notes, lambda name: head_dim if name.endswith(ROTARY) else None),
        files=files,
        tokenizer_ids=largest_vocabulary(files),
        notes=tuple(notes),
    )


def _named(
    entries: Mapping[str, TensorEntry], params: Mapping[str, object], notes: list[str]
) -> Iterator[tuple[str, TensorEntry]]:
    """Yield the text model's tensors under Hugging Face's names."""
    vision = [name for name in entries if name.startswith(VISION)]
    if vision and not params.get("vision_encoder"):
        raise ConfigError(f"params.json has no vision_encoder, but there is a tensor {shown(vision[0])}")
    if vision:
        notes.append("vision_encoder is left out: the text model is converted alone")
    for name, entry in entries.items():
        path, _, part = name.rpartition(".")
        if part == "qscale_act":
            yield name, entry  # some belong to modules that exist for nothing else
        elif not name.startswith(VISION):
            yield f"{_module(path, name)}.{part}", entry


def _module(path: str, name: str) -> str:
    if path in GLOBAL_MODULES:
        return GLOBAL_MODULES[path]
    match = re.fullmatch(r"layers\.(0|[1-9]\d*)\.(\w+(\.\w+)?)", path, re.ASCII)
    if match is None or match[2] not in BLOCK_MODULES:
        raise CheckpointError(f"tensor {shown(name)} has no place in a Mistral model; the folder cannot be converted")
    return f"model.layers.{match[1]}.{BLOCK_MODULES[match[2]]}"

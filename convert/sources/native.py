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
from mistral_mlx.model.blocks import EXPERTS, ROUTER, expert_path

from . import fp8
from .experts import NAMES, joined
from .native_params import MULTIMODAL, to_config
from .source import Source
from .text_model import left_out
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
    "feed_forward.gate": ROUTER,
}
MODULE = re.compile(r"layers\.(0|[1-9]\d*)\.(\w+(?:\.\w+)?)", re.ASCII)
EXPERT = re.compile(r"layers\.(0|[1-9]\d*)\.feed_forward\.experts\.(0|[1-9]\d{0,2})\.(w[123])", re.ASCII)
ROTARY = (".q_proj.weight", ".k_proj.weight")  # rows 2i and 2i + 1 of a head turn together
BESIDE = ("vision_encoder", "vision_language_adapter", "patch_merger", "pre_mm_projector_norm")  # the text model
# Embeddings of what is beside it, among which those of text lie, too.
EMBEDDINGS = ("mm_whisper_embeddings", "mm_audio_embeddings", "mm_embeddings")
TEXT_EMBEDDING = "tok_embeddings."


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
    if not any(key in params for key in ("max_position_embeddings", "max_seq_len", "model_max_length")):
        notes.append(
            f"params.json does not say for how many positions the model was trained: "
            f"{config['max_position_embeddings']} are assumed, as max_position_embeddings in the target's config.json"
        )
    if any(p.suffix == ".gguf" for p in folder.path.iterdir()):
        notes.append("the folder holds a GGUF file too: the safetensors are converted")
    files = find_files(folder)
    args = ModelArgs.from_config(config)
    tensors = fp8.scaled_tensors(named, block, notes, lambda name: head_dim if name.endswith(ROTARY) else None)
    return Source(
        path=folder.path,
        config=config,
        args=args,
        tensors=joined(tensors, args),
        files=files,
        tokenizer_ids=largest_vocabulary(files),
        notes=tuple(notes),
    )


def _named(
    entries: Mapping[str, TensorEntry], params: Mapping[str, object], notes: list[str]
) -> Iterator[tuple[str, TensorEntry]]:
    """Yield the text model's tensors under Hugging Face's names."""
    alone = {name: _alone(name) for name in entries}
    beside = [name for name, plain in alone.items() if plain is None]
    if beside and not any(params.get(key) for key in MULTIMODAL):
        raise ConfigError(f"params.json has no {' or '.join(MULTIMODAL)}, but there is a tensor {shown(beside[0])}")
    notes.extend(left_out(name.partition(".")[0] for name in beside))
    for name, plain in alone.items():
        if plain is not None:
            path, _, part = plain.rpartition(".")
            # Some scales of activations belong to modules that exist for nothing else.
            yield plain if part == "qscale_act" else f"{_module(path, name)}.{part}", entries[name]


def _alone(name: str) -> str | None:
    """Return the name that a tensor has in a model of text; None if it lies beside the text model."""
    first, _, rest = name.partition(".")
    if first in EMBEDDINGS:
        return rest if rest.startswith(TEXT_EMBEDDING) else None
    return None if first in BESIDE else name


def _module(path: str, name: str) -> str:
    if path in GLOBAL_MODULES:
        return GLOBAL_MODULES[path]
    if expert := EXPERT.fullmatch(path):
        return f"model.layers.{expert[1]}.{expert_path(f'{EXPERTS}.{NAMES[expert[3]]}', int(expert[2]))}"
    match = MODULE.fullmatch(path)
    if match is None or match[2] not in BLOCK_MODULES:
        raise CheckpointError(f"tensor {shown(name)} has no place in a Mistral model; the folder cannot be converted")
    return f"model.layers.{match[1]}.{BLOCK_MODULES[match[2]]}"

"""Rebuilds transformers_logits.json: ``python tests/oracles/transformers_logits.py``, with torch and transformers 5.

The tests read the file and need neither. It has the logits of each case at `POSITIONS`, in float32, and the config and
the names of a text model in a wrapper: those that transformers saves, and those of its modules, which newer files have.
"""

import json
import tempfile
from pathlib import Path

import torch
import transformers
from graphs import CONFIGS, POSITIONS, WRAPPED, random_ids, random_weights
from safetensors import safe_open

CLASSES = {
    "ministral3": (transformers.Ministral3Config, transformers.Ministral3ForCausalLM),
    "mistral": (transformers.MistralConfig, transformers.MistralForCausalLM),
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM),
    "mixtral": (transformers.MixtralConfig, transformers.MixtralForCausalLM),
}
EXPERTS = ".block_sparse_moe.switch_mlp."
VISION = {
    "model_type": "pixtral",
    "hidden_size": 16,
    "intermediate_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "head_dim": 8,
    "patch_size": 14,
    "image_size": 28,
}


def logits(model: torch.nn.Module) -> list[list[float]]:
    """Return the logits at `POSITIONS`."""
    with torch.no_grad():
        whole = model.float().eval()(input_ids=torch.tensor(random_ids())[None]).logits[0]
    return [[round(value, 5) for value in whole[p].tolist()] for p in POSITIONS]


def weighted(model: torch.nn.Module) -> torch.nn.Module:
    """Return the model with the weights of `random_weights`; a tied head is the embedding."""
    state = model.state_dict()
    if model.config.tie_word_embeddings:
        del state["lm_head.weight"]
    shapes = {ours: shape for name, value in state.items() for ours, shape in renamed(name, tuple(value.shape))}
    weights = {name: torch.tensor(w) for name, w in random_weights(shapes).items()}
    for name in [name for name in weights if name.endswith(f"{EXPERTS}gate_proj.weight")]:
        block = name.partition(EXPERTS)[0]
        parts = [weights.pop(f"{block}{EXPERTS}{part}_proj.weight") for part in ("gate", "up", "down")]
        weights[f"{block}.mlp.experts.gate_up_proj"] = torch.cat(parts[:2], dim=1)
        weights[f"{block}.mlp.experts.down_proj"] = parts[2]
        weights[f"{block}.mlp.gate.weight"] = weights.pop(f"{block}.block_sparse_moe.gate.weight")
    model.load_state_dict(weights, strict=model.config.model_type == "mixtral")
    model.tie_weights()
    return model


def renamed(name: str, shape: tuple[int, ...]) -> list[tuple[str, tuple[int, ...]]]:
    """Return the tensors that one of transformers is in this program: experts have gate and up apart."""
    block, found, last = name.partition(".mlp.experts.")
    if found and last == "gate_up_proj":
        one = (shape[0], shape[1] // 2, shape[2])
        return [(f"{block}{EXPERTS}{part}_proj.weight", one) for part in ("gate", "up")]
    if found:
        return [(f"{block}{EXPERTS}{last}.weight", shape)]
    return [(name.replace(".mlp.gate.", ".block_sparse_moe.gate."), shape)]


def plain(config: dict[str, object]) -> torch.nn.Module:
    """Return the text model alone."""
    family, model = CLASSES[str(config["model_type"])]
    return weighted(model(family(**config)))


def wrapped(config: dict[str, object]) -> tuple[torch.nn.Module, dict[str, object]]:
    """Return the same text model in a wrapper, with its config.json and the shapes of its tensors under both names."""
    outer = transformers.Mistral3Config(text_config=dict(config), vision_config=VISION, tie_word_embeddings=False)
    model = transformers.Mistral3ForConditionalGeneration(outer)
    text = plain(config)
    model.model.language_model.load_state_dict(text.model.state_dict())
    model.lm_head.load_state_dict(text.lm_head.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        saved = json.loads((Path(folder) / "config.json").read_text())
        with safe_open(Path(folder) / "model.safetensors", "pt") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in sorted(file.keys())}
    modules = {name: list(value.shape) for name, value in sorted(model.state_dict().items())}
    return model, {"config": saved, "shapes": [shapes, modules]}


def main() -> None:
    """Write the file beside this one."""
    found: dict[str, object] = {name: logits(plain(config)) for name, config in CONFIGS.items()}
    model, saved = wrapped(CONFIGS[WRAPPED[1]])
    made = {"transformers": transformers.__version__, "logits": found | {WRAPPED[0]: logits(model)}, "wrapped": saved}
    Path(__file__).with_suffix(".json").write_text(json.dumps(made, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()

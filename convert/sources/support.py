"""What the program can do with a checkpoint, from its config alone: run it, convert it, or neither.

A file of weights need not be there, so that this can be asked before one is fetched.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from mistral_mlx.errors import ModelError
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.expert_files import parts
from mistral_mlx.model.wrappers import text_names, text_part

from .gptq import METHODS
from .hf import RULE_KEYS, harmless
from .native_params import to_config
from .text_model import text_config

TENSOR = "model.layers.0.mlp.up_proj.weight"  # as most checkpoints name it


@dataclass(frozen=True)
class Support:
    """What the program can do with a checkpoint."""

    verdict: Literal["runs", "convert", "refused"]
    why: str = ""  # it does not run as it is
    args: ModelArgs | None = None  # unless it is refused


def of_huggingface(config: Mapping[str, object], tensors: Iterable[str] = (TENSOR,)) -> Support:
    """Return what can be done with a folder in Hugging Face's layout that has `tensors`; some suffice."""
    try:
        args = ModelArgs.from_config(text_config(harmless(config)))
    except ModelError as error:
        return Support("refused", str(error))
    try:
        as_it_is = ModelArgs.from_config(config)
    except ModelError as error:
        return Support("convert" if _is_unpacked(config) else "refused", str(error), args)
    names = text_names(tensors)
    known = {part for name, shape in expected_shapes(args).items() for part in parts(name, shape, names)}
    known |= {f"{name.removesuffix('weight')}{part}" for name in known for part in ("scales", "biases")}
    if not names.keys() <= known:
        return Support("convert", "its tensors are named otherwise", args)
    return Support("runs", args=as_it_is)


def of_native(params: Mapping[str, object]) -> Support:
    """Return what can be done with a folder in Mistral's own layout, which no command but convert reads."""
    try:
        args = ModelArgs.from_config(to_config(params, dtype="BF16", tied=bool(params.get("tied_embeddings"))))
    except ModelError as error:
        return Support("refused", str(error))
    return Support("convert", "it is in Mistral's own layout", args)


def _is_unpacked(config: Mapping[str, object]) -> bool:
    """Return whether `convert` can unpack what the config says of the weights."""
    rules = config if any(map(config.get, RULE_KEYS)) else text_part(config)
    rule = next((rules[key] for key in RULE_KEYS if rules.get(key)), None)
    return isinstance(rule, Mapping) and rule.get("quant_method") in ("fp8", "compressed-tensors", *METHODS)

"""Rotary positions of a model in the words of a GGUF file: the architecture, its keys, and a tensor of factors."""

import math

import numpy as np
import numpy.typing as npt

from mistral_mlx.convert.sources.gguf.header import Value
from mistral_mlx.errors import ConversionError
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.rope import Llama3, Yarn, attention_factor, inverse_frequencies


def architecture(args: ModelArgs) -> str:
    """Return the architecture of llama.cpp's that computes the model."""
    return "mistral3" if args.query_scale or isinstance(args.rope_scaling, Yarn) else "llama"


def rope_metadata(args: ModelArgs) -> dict[str, Value]:
    """Return the keys of scaled positions and queries. Raises ConversionError if llama.cpp cannot compute them."""
    yarn, scale = args.rope_scaling, args.query_scale
    keys: dict[str, Value] = {}
    if isinstance(yarn, Yarn):
        if not yarn.truncate:
            raise ConversionError("config.json: truncate is false, which a GGUF file cannot say of YaRN")
        keys |= {
            "rope.scaling.type": "yarn",
            "rope.scaling.factor": yarn.factor,
            "rope.scaling.original_context_length": yarn.original,
            "rope.scaling.yarn_beta_fast": yarn.beta_fast,
            "rope.scaling.yarn_beta_slow": yarn.beta_slow,
            **_length(yarn),
        }
    if scale:
        keys |= {
            "attention.temperature_scale": scale.beta,
            "rope.scaling.original_context_length": scale.original,
        }
    return keys


def rope_factors(args: ModelArgs) -> npt.NDArray[np.float32] | None:
    """Return what llama.cpp divides the frequencies of Llama 3 by; None for other models."""
    if not isinstance(args.rope_scaling, Llama3):
        return None
    plain = inverse_frequencies(args.head_dim, args.rope_theta)
    with np.errstate(all="ignore"):  # a frequency may be 0 or infinite
        factors = plain / args.rope_scaling.scaled(plain, args.rope_theta)
    if not np.isfinite(factors).all():
        raise ConversionError(f"config.json: rope_theta {args.rope_theta:g} gives frequencies that cannot be scaled")
    return factors.astype(np.float32)


def _length(yarn: Yarn) -> dict[str, Value]:
    """Return the keys that give the attention factor, as llama.cpp computes it: with mscale 1."""
    usual = attention_factor(yarn.factor)
    if math.isclose(yarn.attention_factor, usual, rel_tol=1e-9):
        return {}
    if math.isclose(yarn.attention_factor, 1, rel_tol=1e-9):
        return {"rope.scaling.yarn_log_multiplier": 1.0}
    return {"rope.scaling.attn_factor": yarn.attention_factor / usual}

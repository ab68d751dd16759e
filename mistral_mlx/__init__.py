"""Mistral models on MLX: rolling-window attention, quantized weights, on Apple silicon and on any CPU.

    from mistral_mlx import load, stream_generate

    model, tokenizer = load("path/to/model")
    for response in stream_generate(model, tokenizer, "Once upon a time"):
        print(response.text, end="", flush=True)

The names below are the public interface. They are imported when first used: importing the package imports nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .version import __version__

if TYPE_CHECKING:
    from mistral_mlx.constraint.constraint import Constraint
    from mistral_mlx.generation.answer import AnswerOptions
    from mistral_mlx.generation.response import GenerationResponse
    from mistral_mlx.generation.stream import generate, generate_step, prefill, stream_generate
    from mistral_mlx.model.args import ModelArgs
    from mistral_mlx.model.cache import RollingBufferCache, make_cache
    from mistral_mlx.model.loading import load, load_model
    from mistral_mlx.model.mistral import Mistral
    from mistral_mlx.model.packing import QuantizationArgs
    from mistral_mlx.prompt.encode import encode_chat
    from mistral_mlx.sampling.sampler import Sampler
    from mistral_mlx.session.session import Session
    from mistral_mlx.tokenizer.choose import Tokenizer, load_tokenizer
    from mistral_mlx.tokenizer.detokenizer import StreamingDetokenizer

    from .errors import (
        CheckpointError,
        ConfigError,
        ConstraintError,
        ContextError,
        ConversionError,
        MistralMLXError,
        ModelError,
        OptionError,
        SessionError,
        TokenizerError,
    )

_HOMES = {
    "model.args": ("ModelArgs", "QuantizationArgs"),
    "model.cache": ("RollingBufferCache", "make_cache"),
    "tokenizer.detokenizer": ("StreamingDetokenizer",),
    "errors": (
        "CheckpointError",
        "ConfigError",
        "ConstraintError",
        "ContextError",
        "ConversionError",
        "MistralMLXError",
        "ModelError",
        "OptionError",
        "SessionError",
        "TokenizerError",
    ),
    "constraint.constraint": ("Constraint",),
    "generation.answer": ("AnswerOptions",),
    "generation.response": ("GenerationResponse",),
    "generation.stream": ("generate", "generate_step", "prefill", "stream_generate"),
    "prompt.encode": ("encode_chat",),
    "model.loading": ("load", "load_model"),
    "model.mistral": ("Mistral",),
    "sampling.sampler": ("Sampler",),
    "session.session": ("Session",),
    "tokenizer.choose": ("Tokenizer", "load_tokenizer"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "AnswerOptions",
    "CheckpointError",
    "ConfigError",
    "Constraint",
    "ConstraintError",
    "ContextError",
    "ConversionError",
    "GenerationResponse",
    "Mistral",
    "MistralMLXError",
    "ModelArgs",
    "ModelError",
    "OptionError",
    "QuantizationArgs",
    "RollingBufferCache",
    "Sampler",
    "Session",
    "SessionError",
    "StreamingDetokenizer",
    "Tokenizer",
    "TokenizerError",
    "__version__",
    "encode_chat",
    "generate",
    "generate_step",
    "load",
    "load_model",
    "load_tokenizer",
    "make_cache",
    "prefill",
    "stream_generate",
]


def __getattr__(name: str) -> object:
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME_OF[name]}", __name__), name)

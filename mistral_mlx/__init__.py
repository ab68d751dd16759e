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
    from .args import ModelArgs
    from .cache import RollingBufferCache, make_cache
    from .detokenizer import StreamingDetokenizer
    from .errors import (
        CheckpointError,
        ConfigError,
        ContextError,
        ConversionError,
        MistralMLXError,
        ModelError,
        OptionError,
        SessionError,
        TokenizerError,
    )
    from .generation import GenerationResponse, generate, generate_step, prefill, stream_generate
    from .instruct import encode_chat
    from .loading import load, load_model
    from .model import Mistral
    from .packing import QuantizationArgs
    from .sampling import Sampler
    from .session import Session
    from .tokenizer import Tokenizer, load_tokenizer

_HOMES = {
    "args": ("ModelArgs", "QuantizationArgs"),
    "cache": ("RollingBufferCache", "make_cache"),
    "detokenizer": ("StreamingDetokenizer",),
    "errors": (
        "CheckpointError",
        "ConfigError",
        "ContextError",
        "ConversionError",
        "MistralMLXError",
        "ModelError",
        "OptionError",
        "SessionError",
        "TokenizerError",
    ),
    "generation": ("GenerationResponse", "generate", "generate_step", "prefill", "stream_generate"),
    "instruct": ("encode_chat",),
    "loading": ("load", "load_model"),
    "model": ("Mistral",),
    "sampling": ("Sampler",),
    "session": ("Session",),
    "tokenizer": ("Tokenizer", "load_tokenizer"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "CheckpointError",
    "ConfigError",
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

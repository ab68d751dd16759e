"""The converter: a checkpoint in, an MLX model folder out; and the way out, to GGUF."""

from .report import Report
from .run import convert

__all__ = ["Report", "convert"]

"""The progress callback of the engine, under the name that `convert` imports."""

from mistral_mlx.progress import Progress

__all__ = ["Progress"]

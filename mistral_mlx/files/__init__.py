"""Reads a model folder, which is untrusted data: confined paths, bounded JSON, safetensors headers."""

"""Reads a model folder, which is untrusted: confined paths, bounded JSON, headers."""

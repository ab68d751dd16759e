"""Packs the tensors and writes the target folder."""

"""Rounding and choosing bits on a text: the source is run block by block, and what its weights read is gathered."""

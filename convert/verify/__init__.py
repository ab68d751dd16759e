"""Compares the result with its source."""

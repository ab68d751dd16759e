"""The model: its arguments, weights, cache and forward pass."""

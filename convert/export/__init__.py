"""The way out: an MLX folder as a GGUF file."""

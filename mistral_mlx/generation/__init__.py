"""The token loop: prefill, decode, and the stream of text."""

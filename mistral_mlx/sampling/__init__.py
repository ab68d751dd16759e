"""Logits to the next token id: filters, penalties and the sampler."""

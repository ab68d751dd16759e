"""Runs complete and batch: prompts in, answers out."""

"""Writes files: shards in order, in the background, and as a whole or not at all."""

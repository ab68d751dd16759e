"""A conversation: messages, the cache that follows them, and the saved file; and kept beginnings of prompts."""

"""The chat session in the terminal."""

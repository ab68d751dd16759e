"""Chat messages to token ids: Mistral's own formats and chat templates."""

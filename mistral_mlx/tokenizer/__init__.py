"""Text to token ids and back: SentencePiece, tekken and tokenizer.json."""

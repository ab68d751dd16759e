"""A Hugging Face endpoint: what a repository is called, what it holds, and how its files are fetched."""

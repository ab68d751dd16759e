"""Measures speed (benchmark) and quality (evaluation)."""

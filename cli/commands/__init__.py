"""One file for each command: its options, examples and help."""

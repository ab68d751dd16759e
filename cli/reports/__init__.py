"""What the reporting commands compute and print."""

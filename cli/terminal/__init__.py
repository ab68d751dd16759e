"""What reaches the screen: streams, signals, Markdown, safe text."""

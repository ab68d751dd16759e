"""Opens a checkpoint of any supported layout as a Source."""

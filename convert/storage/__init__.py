"""How weights are stored in a checkpoint, and how they are unpacked."""

"""What a checkpoint may be stored as: a file for each layout or packing that is read; none knows the target."""

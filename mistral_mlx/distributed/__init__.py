"""One model shared by several processes, on one machine or on many, by the communication of MLX."""

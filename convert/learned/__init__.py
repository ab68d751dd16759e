"""mlx-lm's learned quantization (AWQ, GPTQ, DWQ): a process of its own runs it, and what it made is taken over."""

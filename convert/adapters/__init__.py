"""LoRA and DoRA adapters, as PEFT and mlx-lm write them, merged while a source is read."""

"""Reads LoRA and DoRA adapters of PEFT and mlx-lm."""

"""Runs the program as ``python -m mistral_mlx``."""

from mistral_mlx.cli.main import main

if __name__ == "__main__":
    main()

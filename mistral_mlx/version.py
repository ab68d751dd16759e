"""The one place the version number is written; knows nothing else."""

__version__ = "0.1.0"

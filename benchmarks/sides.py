"""Starts the sides of a comparison, each with its program and its files."""

import argparse
import sys
from pathlib import Path

from common import FOLDER, Side
from models import BenchmarkModel

MARGIN = 256  # of llama.cpp's context beyond what is asked for


def ours(options: argparse.Namespace, model: BenchmarkModel) -> Side:
    """Start our program with the MLX folder."""
    return ours_in(model.folder(options.work), options.threads)


def ours_in(folder: Path, threads: int) -> Side:
    """Start our program with the model in `folder`."""
    return Side("ours", sys.executable, FOLDER / "side_ours.py", folder, threads)


def llama(options: argparse.Namespace, model: BenchmarkModel, n_ctx: int) -> Side:
    """Start llama.cpp with the GGUF file and a context for `n_ctx` tokens."""
    script, file = FOLDER / "side_llama.py", model.gguf(options.work)
    return Side("llama.cpp", options.llama_python, script, "serve", file, options.threads, n_ctx + MARGIN)


def mlx_lm(options: argparse.Namespace, model: BenchmarkModel) -> Side:
    """Start mlx-lm with the folder that we read."""
    return Side("mlx-lm", sys.executable, FOLDER / "side_mlx_lm.py", model.folder(options.work))

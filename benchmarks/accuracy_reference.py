"""The reference of accuracy.py: the slow model of the tests, in float64 on the very weights of a packed folder."""

import sys
from collections.abc import Sequence
from pathlib import Path

import mlx.core as mx
import numpy as np
from common import FOLDER
from numpy.typing import NDArray

from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import read_args

sys.path.append(str(FOLDER.parent / "tests"))
from reference import forward

Weights = dict[str, NDArray[np.float64]]


def unpacked(folder: Path) -> tuple[ModelArgs, Weights]:
    """Return the arguments of a folder with one file of weights, and ``scale * code + bias`` without a rounding."""
    args = read_args(ModelFolder(folder))
    arrays = mx.load(str(folder / "model.safetensors"))
    assert isinstance(arrays, dict)
    return args, {
        name: _unpacked(name.removesuffix(".weight"), arrays, args)
        for name in arrays
        if not name.endswith((".scales", ".biases"))
    }


def logits(args: ModelArgs, weights: Weights, ids: Sequence[int]) -> NDArray[np.float64]:
    """Return the logits ``[S, V]`` of all positions."""
    found: NDArray[np.float64] = forward(args, weights, ids)
    return found


def _unpacked(path: str, arrays: dict[str, mx.array], args: ModelArgs) -> NDArray[np.float64]:
    weight = arrays[f"{path}.weight"]
    if f"{path}.scales" not in arrays:
        return np.array(weight.astype(mx.float32), np.float64)
    assert args.quantization is not None
    packing = args.quantization.of(path)
    scales, biases = (arrays[f"{path}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
    # With scales of 1 and no biases MLX unpacks the codes alone, which float32 holds exactly.
    ones, zeros = mx.ones_like(scales), mx.zeros_like(biases)
    with mx.stream(mx.cpu):
        codes = mx.dequantize(weight, ones, zeros, group_size=packing.group_size, bits=packing.bits)
    wide = np.array(codes, np.float64).reshape(*scales.shape, packing.group_size)
    wide *= np.array(scales, np.float64)[..., None]
    wide += np.array(biases, np.float64)[..., None]
    return wide.reshape(codes.shape)

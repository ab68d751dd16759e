"""A folder with a tiny model, and every way to compute a step."""

import pytest
from helpers.models import tiny_config, tiny_weights, write_folder

from mistral_mlx import kernels
from mistral_mlx.kernels import native
from mistral_mlx.model.args import ModelArgs


@pytest.fixture
def folder(tmp_path):
    config = tiny_config()
    return write_folder(tmp_path / "model", config, tiny_weights(ModelArgs.from_config(config)))


@pytest.fixture(params=["native", "numpy", "mlx"])
def _every_path(request, monkeypatch):
    """The native kernels, NumPy, and MLX's own operations as on a GPU."""
    if request.param == "native" and not native.available:
        pytest.skip(f"no native kernels: {native.missing}")
    monkeypatch.setattr(native, "available", request.param == "native")
    if request.param == "mlx":
        monkeypatch.setattr(kernels, "on_cpu", lambda: False)

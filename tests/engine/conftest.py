"""A folder with a tiny model."""

import pytest
from helpers.models import tiny_config, tiny_weights, write_folder

from mistral_mlx.model.args import ModelArgs


@pytest.fixture
def folder(tmp_path):
    config = tiny_config()
    return write_folder(tmp_path / "model", config, tiny_weights(ModelArgs.from_config(config)))

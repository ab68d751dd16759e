import pytest
from helpers.tiny_folder import repeat_forever, write_tiny_folder


@pytest.fixture(scope="session")
def endless(tmp_path_factory):
    """A folder whose model writes one word for ever, and has a layer for each of four processes."""
    folder = tmp_path_factory.mktemp("endless") / "model"
    return repeat_forever(write_tiny_folder(folder, num_hidden_layers=4, max_position_embeddings=10_000_000))

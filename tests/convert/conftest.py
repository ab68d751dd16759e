"""Plain float32 folders to convert and to export."""

from pathlib import Path

import pytest
from helpers.convert_sources import write_folder


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "source")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plain float32 folder of Hugging Face."""
    return write_folder(tmp_path / "plain")

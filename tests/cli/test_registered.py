"""Names that the user registers, changes and removes."""

import pytest
from helpers.cli import one_line, run

from mistral_mlx.cli.models.registry import registered

pytestmark = pytest.mark.usefixtures("disk")


def test_a_conversion_registers_its_result_and_says_what_comes_next(folder, tmp_path):
    result = run("convert", folder, "out", "--group-size", "32", "--name", "mine")
    assert result.stderr.decode().endswith("mistral-mlx: try it: mistral-mlx chat -m mine\n")
    assert registered() == {"mine": tmp_path / "out"}
    other = run("convert", folder, "other", "--group-size", "32", "--name", "mine")
    assert (other.returncode, "mine is the name of" in one_line(other.stderr)) == (2, True)
    assert not (tmp_path / "other").exists()
    again = run("convert", folder, "out", "--group-size", "32", "--name", "mine", "--overwrite", "-q")
    assert (again.returncode, again.stderr) == (0, b"")
    unnamed = run("convert", folder, "un named", "--group-size", "32")
    assert unnamed.stderr.decode().endswith("try it: mistral-mlx chat -m './un named'\n")
    dry = run("convert", folder, "dry", "--group-size", "32", "--name", "dry", "--dry-run")
    assert b"try it" not in dry.stderr and "dry" not in registered()

"""The native extension is loaded, and a set of kernels is selected by its name."""

import os
import subprocess
import sys

import mlx.core as mx
import pytest
from helpers.native import SETS

from mistral_mlx.kernels import Weight, native

pytestmark = pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")


def test_the_extension_knows_the_arrays_of_this_mlx():
    """Both must have the same ABI tag of nanobind: if a new mlx moves it, move both pins in pyproject.toml."""
    weight = Weight(mx.ones((3, 2)))
    assert native.ext.products(mx.ones((1, 2)), [weight])[0].tolist() == [[2.0, 2.0, 2.0]]


def python(code, kernel_set):
    env = {**os.environ, "MISTRAL_MLX_KERNELS": kernel_set}
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("name", SETS)
def test_the_name_that_is_shown_selects_the_set(name):
    """The set avx512-vnni was selected as avx512, and the name that --version prints was ignored."""
    run = python("from mistral_mlx.kernels import native; print(native.ext.name())", name)
    assert (run.stdout, run.stderr) == (f"{name}\n", "")


def test_an_empty_name_of_a_set_selects_the_best_one():
    assert python("from mistral_mlx.kernels import native; print(native.ext.name())", "").stdout == f"{SETS[0]}\n"


@pytest.mark.parametrize("name", ["nonsense", "avx512", "neon-i8mm" if "avx2" in SETS else "avx2"])
def test_a_set_that_this_cpu_cannot_run_is_refused(name):
    """It was ignored, so that a test of avx-vnni on a CPU without it tested something else, and passed."""
    run = python("from mistral_mlx.cli.app import run; import sys; sys.argv[1:] = ['--version']; run()", name)
    line = f"mistral-mlx: error: MISTRAL_MLX_KERNELS is {name}; this CPU can run: {', '.join(SETS)}\n"
    assert (run.returncode, run.stdout, run.stderr) == (2, "", line)


def test_the_package_can_be_imported_whatever_set_is_named():
    assert python("import mistral_mlx", "nonsense").returncode == 0

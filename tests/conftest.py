"""Tiny seeded models for all tests, in memory and as folders; everything runs on the CPU.

MISTRAL_MLX_TEST_DEVICE=gpu runs them on the GPU of MLX instead, all but those that say what only a CPU does.
"""

import os
import signal

import mlx.core as mx
import pytest
from helpers.models import LetterTokenizer

from mistral_mlx import kernels
from mistral_mlx.cli.models.registry import registered
from mistral_mlx.kernels import native
from mistral_mlx.tokenizer.detokenizer import LeadingSpace

DEMO = registered().get("demo")  # asked before the fixtures below hide the user's own models
ON_GPU = {"cpu": False, "gpu": True}[os.environ.get("MISTRAL_MLX_TEST_DEVICE", "cpu")]
if ON_GPU:
    os.environ["MLX_ENABLE_TF32"] = "0"  # else CUDA multiplies float32 with 10 bits
    native.available, native.built, native.missing = False, False, "the tests run on a GPU"


def pytest_collection_modifyitems(items):
    """Skip on a GPU what only a CPU does."""
    if ON_GPU:
        for item in items:
            if item.get_closest_marker("cpu"):
                item.add_marker(pytest.mark.skip(reason=native.missing))


@pytest.fixture(autouse=True, scope="session")
def _device():
    mx.set_default_device(mx.gpu if ON_GPU else mx.cpu)


@pytest.fixture(autouse=True, scope="session")
def _programs_obey_signals():
    """Let programs that tests start obey signals, also where nohup or a shell's `&` makes the test run ignore them.

    A program inherits an ignored signal, and rightly keeps ignoring it. It does not inherit a handler.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda number, frame: None)


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """Use a folder of its own for each test: not the user's, and without the remark on missing kernels."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "said-slow-kernels").touch()
    for name in [name for name in os.environ if name.startswith("MISTRAL_MLX_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("MISTRAL_MLX_HOME", str(folder))
    return folder


@pytest.fixture
def exact_cache(monkeypatch):
    """Keys and values in the dtype of the activations, for comparisons that half precision would blur."""
    monkeypatch.setattr(kernels, "cache_dtype", kernels.activation_dtype)


@pytest.fixture
def exact_products():
    """Products that round their activations to 16 bits, for comparisons with others that do not round them."""
    with kernels.exactly():
        yield


@pytest.fixture(scope="session")
def demo():
    """The folder of the real demo model."""
    if DEMO is None or not DEMO.is_dir():
        pytest.skip("the demo model is not here; run: mistral-mlx pull demo")
    return DEMO


class ThumbTokenizer(LetterTokenizer):
    """Its last four ids are the bytes of one character."""

    THUMB = tuple(range(6 + len(LetterTokenizer.LETTERS) - 4, 6 + len(LetterTokenizer.LETTERS)))

    leading = LeadingSpace.KEPT

    def pieces(self):
        return [None] * 6 + list(self.LETTERS[:-4]) + [bytes([byte]) for byte in "👍".encode()]

"""Each set of native kernels in turn."""

import pytest
from helpers.native import SETS

from mistral_mlx.kernels import native


@pytest.fixture(params=SETS)
def kernels(request):
    before = native.ext.name()
    assert native.ext.select(request.param)
    yield native.ext
    native.ext.set_exact(False)
    assert native.ext.select(before)

"""Without the compiled kernels a block is computed in MLX's operations, as on a GPU: processes share it as well."""

import numpy as np
import pytest
from helpers.shared_jobs import CLOSE, CLOSE_IN_16_BITS, assert_close, outcomes

from mistral_mlx.kernels import native

pytestmark = [pytest.mark.distributed, pytest.mark.cpu]

SHORT = {"n_prompt": 140, "n_steps": 4, "step_size": 64}
GIVEN = {
    "float32": ("float32", "forced", SHORT),
    "4 bits": ("4 bits", "forced", SHORT),
    "experts apart": ("experts apart", "forced", SHORT),
    "every position": ("windows of layers", "every_position", {"n": 300, "sizes": [200, 1]}),
    "all of these": ("float32", "forced", SHORT, {"window": 5, "sinks": 4, "kv_bits": 8}),
}
CHOSEN = {
    "drafts": ("float32", "drafts", {}),
    "stopped by an interrupt": ("float32", "stopped", {"at": 3, "by": "KeyboardInterrupt"}),
}
TOGETHER = {"together": ("windows of layers", "together", {"n": 4})}
WAYS = {"tensor": False, "pipeline": True}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return the outcomes by way and name."""
    folder, jobs = tmp_path_factory.mktemp("models"), GIVEN | CHOSEN | TOGETHER
    named = {
        (way, name): (model, scenario, args, {**dict(*wanted), "pipeline": pipeline})
        for way, pipeline in WAYS.items()
        for name, (model, scenario, args, *wanted) in jobs.items()
    }
    return outcomes(2, folder, named, native=False)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", GIVEN)
def test_logits_of_a_given_text(done, way, name):
    shared, alone, _ = done[way, name]
    assert_close(shared, alone, CLOSE if name in ("float32", "every position") else CLOSE_IN_16_BITS)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", CHOSEN)
def test_tokens_that_were_chosen(done, way, name):
    shared, alone, _ = done[way, name]
    assert shared == alone


@pytest.mark.parametrize("way", WAYS)
def test_texts_of_different_lengths_go_on_together(done, way):
    shared, alone, _ = done[way, "together"]
    for ours, expected in zip(shared, alone, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=CLOSE)


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
def test_kernels_without_vectors_share_a_model_as_well(tmp_path, monkeypatch):
    monkeypatch.setenv("MISTRAL_MLX_KERNELS", "portable")
    jobs = {name: GIVEN[name] for name in ("float32", "4 bits", "experts apart")}
    for name, (shared, alone, _) in outcomes(2, tmp_path, jobs).items():
        assert_close(shared, alone, CLOSE if name == "float32" else CLOSE_IN_16_BITS)

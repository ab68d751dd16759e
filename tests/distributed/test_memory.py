"""A process holds its part of the weights and no more, at no time."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_config, write_folder
from helpers.ranks import Job, drive

from mistral_mlx.model.args import ModelArgs, expected_shapes

pytestmark = [pytest.mark.distributed, pytest.mark.cpu]

SIZES = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
}
SPARE = 40e6  # for what a step takes beside the weights


@pytest.fixture(scope="module")
def large(tmp_path_factory):
    """Return a folder with 250 MB of blocks."""
    config, rng = tiny_config(**SIZES), np.random.default_rng(0)
    numbers = (rng.normal(size=1 << 20) / 16).astype(np.float32)
    arrays = {
        name: mx.array(np.resize(numbers, shape)).astype(mx.bfloat16)
        for name, shape in expected_shapes(ModelArgs.from_config(config)).items()
    }
    return write_folder(tmp_path_factory.mktemp("model") / "large", config, arrays)


@pytest.mark.parametrize("pipeline", [False, True])
def test_a_process_of_two_holds_half_of_the_blocks(large, pipeline):
    """And one block as it lies in the file, while it is copied out of it. The prompt is so long that sums are cut."""
    args, n_layers = {"n_prompt": 150, "n_steps": 2, "step_size": 512}, SIZES["num_hidden_layers"]
    wanted = {"pipeline": pipeline, "ignore_memory": True}
    shared, alone, ranks = drive(2, {"large": Job(large, "forced", args, wanted, [10**10, 10**10])})["large"]
    np.testing.assert_allclose(shared, alone, rtol=0, atol=0 if pipeline else 0.04 * alone.std())
    total = sum(rank["nbytes"] for rank in ranks)
    for rank in ranks:
        assert rank["nbytes"] == pytest.approx(total / 2, rel=0.01)
        assert rank["more"] < total / 2 + total / n_layers + SPARE, ranks

"""What processes agree on before the first step: who gets which layers, who has room, and that all compute alike."""

import pytest
from helpers.shared_jobs import outcomes

from mistral_mlx.kernels import native

pytestmark = [pytest.mark.distributed, pytest.mark.cpu]

SHORT = {"n_prompt": 20, "n_steps": 2, "step_size": 7}
PIPELINE = {"pipeline": True, "ignore_memory": True}
PLENTY = 10**12
JOBS = {
    "much on rank 0": ("float32", "forced", SHORT, PIPELINE, [PLENTY, 0, 0]),
    "much on rank 2": ("float32", "forced", SHORT, PIPELINE, [0, 5, PLENTY]),
    "not known on rank 1": ("float32", "forced", SHORT, PIPELINE, [100, None, PLENTY]),
    "no room on rank 1": ("float32", "forced", SHORT, {"pipeline": True}, [PLENTY, 0, PLENTY]),
    "room for all": ("float32", "forced", SHORT, {"pipeline": True}, [PLENTY, 2 * PLENTY, PLENTY]),
}


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """Return the outcomes with a model of five layers."""
    return outcomes(3, tmp_path_factory.mktemp("models"), JOBS, n_layers=5)


@pytest.mark.parametrize(
    ("name", "n_layers"),
    {
        "much on rank 0": [3, 1, 1],
        "much on rank 2": [1, 1, 3],
        "not known on rank 1": [2, 1, 2],
        "room for all": [1, 3, 1],
    }.items(),
)
def test_layers_go_where_the_memory_is(done, name, n_layers):
    shared, alone, ranks = done[name]
    assert [len(rank["layers"]) for rank in ranks] == n_layers
    assert (shared == alone).all()


def test_all_say_which_rank_has_no_room(done):
    said = {rank["refused"] for rank in done["no room on rank 1"].ranks}
    assert said == {"rank 1 needs 0.0 GB of memory, 0.0 GB are available; take more machines, or add --ignore-memory"}


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
def test_all_must_compute_alike(tmp_path):
    """Others have other dtypes, and cut their sums in other parts: the answer would be noise."""
    jobs = {"mixed": ("float32", "forced", SHORT)}
    found = outcomes(2, tmp_path, jobs, native=[True, False])["mixed"]
    for rank in found.ranks:
        assert rank["refused"].startswith("rank 1 computes by NumPy, rank 0 by the compiled kernels;")

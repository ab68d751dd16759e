"""Jobs for processes that share a model, and how their outcomes are judged."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from helpers.ranks import Job, Outcome, drive
from helpers.shared_models import MODELS, write_shared

CLOSE, CLOSE_IN_16_BITS = 1e-4, 1e-2  # of logits as large as 10, in float32 and with a cache of 16 bits


def outcomes(
    n: int,
    folder: Path,
    jobs: Mapping[str, Job | tuple],
    *,
    native: Sequence[bool] | bool = True,
    n_layers: int = 3,
    **wanted,
) -> dict[str, Outcome]:
    """Do the jobs on `n` processes; (model, scenario, arguments, wanted) names a tiny model."""
    found = {}
    for name, (model, scenario, args, *more) in jobs.items():
        if not (folder / model).exists():
            write_shared(folder / model, **MODELS[model], num_hidden_layers=n_layers)
        options, *memory = more or [{}]
        found[name] = Job(folder / model, scenario, args, {"exact": True, **wanted, **options}, *memory)
    return drive(n, found, native=native, env={"OPENBLAS_NUM_THREADS": "1"})


def assert_close(shared: np.ndarray, alone: np.ndarray, most: float) -> None:
    """Fail unless logits are close, and the likeliest tokens the same wherever that much decides nothing."""
    np.testing.assert_allclose(shared, alone, rtol=0, atol=most)
    second, first = np.partition(alone, -2, axis=-1)[..., -2:].T
    clear = 2 * most < (first - second).T
    assert clear.mean() > 0.9
    assert (shared.argmax(-1) == alone.argmax(-1))[clear].all()

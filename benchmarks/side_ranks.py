"""What every rank runs to measure sums and transfers, by the real group. Rank 0 prints their seconds.

python side_ranks.py TIMES DIM N...: sums of N float32 numbers, and transfers of DIM numbers.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable

import mlx.core as mx
import numpy as np

from mistral_mlx import kernels
from mistral_mlx.distributed.group import Group
from mistral_mlx.distributed.joining import join
from mistral_mlx.distributed.launched import launched

FEW = 1 << 16  # a sum of more numbers is repeated less often


def main() -> None:
    """Measure, and print the medians."""
    n_times, dim, *sizes = map(int, sys.argv[1:])
    me = launched()
    assert me is not None
    mx.set_default_device(mx.cpu)
    group = join(me, 10)
    found = {str(n): _median_s(_sum(n), n_times if n <= FEW else n_times // 10) for n in sizes}
    found["message"] = _median_s(lambda: group.message({"do": "at once"} if group.leads else None), n_times)
    found["circle"] = _median_s(_circle(group, dim), n_times)
    if group.leads:
        print(json.dumps(found), flush=True)


def _sum(n: int) -> Callable[[], object]:
    x = np.zeros(n, np.float32)
    return lambda: kernels.native.ext.sum_over_ranks(x)


def _circle(group: Group, dim: int) -> Callable[[], object]:
    """Return what sends DIM numbers through all ranks, back to rank 0."""
    x = mx.zeros((1, 1, dim))
    mx.eval(x)

    def work() -> None:
        if group.leads:
            group.send(x)
        y = group.receive(x.shape, x.dtype)
        if not group.leads:
            group.send(y)

    return work


def _median_s(work: Callable[[], object], n_times: int) -> float:
    """Return the median of `n_times` after some more."""
    seconds = list[float]()
    for _ in range(n_times + 3):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds[3:])


if __name__ == "__main__":
    main()

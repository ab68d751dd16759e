"""Sums over processes: the real ring of three on this machine."""

import sys

import pytest
from helpers.ranks import ended, ranks

from mistral_mlx.kernels import native

pytestmark = [pytest.mark.cpu, pytest.mark.distributed]

RANK = """
import hashlib
import mlx.core as mx, numpy as np
from mistral_mlx import kernels
from mistral_mlx.distributed.joining import join
from mistral_mlx.distributed.launched import launched

mx.set_default_device(mx.cpu)
me = launched()
group = join(me, 20)
for n in (1, 2, 8192, 8193, 100001):
    x = np.random.default_rng(me.rank).standard_normal(n, np.float32)
    few = x[:7].copy()
    kernels.native.ext.sum_over_ranks(x)
    kernels.native.ext.sum_over_ranks(few)
    assert (few == x[:7]).all(), n  # a number has the same bits among any others
    expected = sum(np.random.default_rng(r).standard_normal(n, np.float32).astype(float) for r in range(me.size))
    assert np.abs(x - expected).max() < 2e-6, n
    print(hashlib.sha256(x.tobytes()).hexdigest())
given = {"text": "x" * 300000} if group.leads else None
assert group.message(given) == {"text": "x" * 300000}
assert group.any(group.leads) and not group.any(False)
if group.leads:
    group.send(mx.arange(1e5))
y = group.receive((100000,), mx.float32)
assert mx.array_equal(y, mx.arange(1e5))
if not group.leads:
    group.send(y)
group.any(False)
"""


@pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")
@pytest.mark.parametrize("size", [2, 3])
def test_sums_and_messages_are_the_same_on_every_rank(size):
    with ranks(size, [sys.executable, "-c", RANK]) as processes:
        ends = ended(processes)
    assert [end.status for end in ends] == [0] * size, ends
    assert len({end.stdout for end in ends}) == 1  # the same bits

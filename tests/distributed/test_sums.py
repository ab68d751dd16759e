"""Sums over processes: the real ring of three on this machine."""

import json
import os
import subprocess
import sys

import pytest
from helpers.ports import free_ports

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
def test_sums_and_messages_are_the_same_on_every_rank(size, tmp_path):
    addresses = [[f"127.0.0.1:{port}"] for port in free_ports(size)]
    hosts = tmp_path / "hosts.json"
    hosts.write_text(json.dumps(addresses))
    environment = {**os.environ, "MLX_HOSTFILE": str(hosts)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    processes = [
        subprocess.Popen([sys.executable, "-c", RANK], env={**environment, "MLX_RANK": str(rank)}, **pipes)
        for rank in range(size)
    ]
    try:
        outputs = [process.communicate(timeout=60) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0] * size, [said.decode() for _, said in outputs]
    assert len({found for found, _ in outputs}) == 1  # the same bits

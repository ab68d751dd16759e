"""One of the processes of `helpers.ranks.drive`: rank 0 does the scenarios, the others follow it."""

import pickle
import sys
from pathlib import Path

import mlx.core as mx
from helpers import shared_texts
from mlx.utils import tree_flatten

from mistral_mlx import kernels
from mistral_mlx.distributed import agree, follower
from mistral_mlx.distributed.agree import Wanted, agreed, loaded
from mistral_mlx.distributed.joining import join
from mistral_mlx.distributed.launched import launched
from mistral_mlx.distributed.leader import Leader
from mistral_mlx.distributed.twins import Followed
from mistral_mlx.errors import GroupError
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.kernels import native
from mistral_mlx.kernels.memory import available_memory
from mistral_mlx.model.loading import inspect_model, load_model
from mistral_mlx.session.fingerprint import folder_fingerprint


class Watched(Followed):
    """The twins of a follower, counted before each step."""

    counts: list[int]

    def take(self, news):
        super().take(news)
        self.counts.append(len(self.caches))


def main(todo):
    me = launched()
    jobs, uses_native = pickle.loads(Path(todo).read_bytes())
    native.available = native.available and uses_native[me.rank]
    mx.set_default_device(mx.cpu)
    kernels.set_threads(1)
    group = join(me, 60)
    found = {name: run(group, job) for name, job in jobs.items()}
    Path(f"{todo}.{me.rank}").write_bytes(pickle.dumps(found))


def run(group, job):
    """Do a job; return which layers this process has, the bytes of its blocks, and what its rank knows beside that."""
    group.is_over = False  # as the job before left it
    model, wanted = inspect_model(ModelFolder(job.folder)), Wanted(**job.wanted)
    if job.memory is not None:
        agree.available_memory = lambda: job.memory[group.rank]
    try:
        wanted, share = agreed(group, model, wanted if group.leads else None)
    except GroupError as error:
        if not error.is_known:
            raise
        return {"refused": str(error), "results": (None, None)}
    finally:
        agree.available_memory = available_memory
    kernels.set_exact(wanted.exact)
    before = peak()
    own = loaded(group, model, share)
    blocks = [block.parameters() for block in own.model.layers]
    nbytes = sum(array.nbytes for _, array in tree_flatten(blocks))
    noted = {"layers": share.layers, "nbytes": nbytes}
    if not group.leads:
        Watched.counts, follower.Followed = [], Watched
        status = follower.follow(group, share, own)
        return noted | {"status": status, "counts": Watched.counts, "more": peak() - before}
    scenario, leader = shared_texts.SCENARIOS[job.scenario], Leader(group, share, own)
    leader.fingerprint = folder_fingerprint(model)
    shared = scenario(leader, **job.args)
    leader.end(7)
    noted["more"] = peak() - before
    alone = load_model(model, window=wanted.window, sinks=wanted.sinks, kv_bits=wanted.kv_bits)
    return noted | {"results": (shared, scenario(alone, **job.args))}


def peak():
    """Return the most bytes that were resident; 0 where Linux does not say it. The figure of getrusage is inherited."""
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:")), 0)


if __name__ == "__main__":
    main(sys.argv[1])

"""Returns how much memory is available and how much this process has used, in bytes; keeps a GPU's memory resident.

Raises OptionError on import if MISTRAL_MLX_COPY_WEIGHTS is not 0 or 1.
"""

import os
import resource
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import mlx.core as mx

from mistral_mlx import kernels
from mistral_mlx.errors import OptionError, shown

COPY_WEIGHTS = os.environ.get("MISTRAL_MLX_COPY_WEIGHTS", "")  # 1: always, 0: never
if COPY_WEIGHTS not in ("", "0", "1"):
    raise OptionError(f"MISTRAL_MLX_COPY_WEIGHTS is {shown(COPY_WEIGHTS)}; it can be 0 or 1")
SPARE_BYTES = 1 << 30  # that copies of weights leave free

CGROUP = Path("/sys/fs/cgroup")  # where the hierarchy of control groups (version 2) is mounted
OWN_CGROUP = Path("/proc/self/cgroup")


def available_memory() -> int | None:
    """Return how much memory new arrays can take without swapping, or None if it is unknown.

    On Linux this is the kernel's estimate, within the limits of the control groups. On a GPU it is the largest working
    set that Metal recommends, or what CUDA has free. Elsewhere it is all physical memory.
    """
    if not kernels.on_cpu():
        key = "max_recommended_working_set_size" if mx.metal.is_available() else "free_memory"
        return int(mx.device_info()[key])
    known = [n for n in (_linux_available(), _cgroup_available()) if n is not None]
    if known:
        return min(known)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def copies_fit(weights: Sequence[kernels.Weight]) -> bool:
    """Whether the native kernels should copy these weights, see `kernels.ready`.

    What lies in a file is let go there; what lies in memory would lie there twice.
    """
    if COPY_WEIGHTS:
        return COPY_WEIGHTS == "1"
    arrays = [array for w in weights for array in (w.weight, w.scales, w.biases) if array is not None]
    if not all(map(kernels.native.ext.is_mapped, arrays)):
        return False
    available = available_memory()
    return available is None or available >= sum(array.nbytes for array in arrays) + SPARE_BYTES


def peak_memory() -> int:
    """Return the most memory this process has held: MLX's count on a GPU, else resident memory.

    Resident memory includes mapped weights that were read and not copied, although other processes share them.
    """
    if not kernels.on_cpu():
        return int(mx.get_peak_memory())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class _Wired:
    """The limit of wired memory, which is raised while somebody generates."""

    def __init__(self) -> None:
        self.lock, self.n_users, self.limit_before = threading.Lock(), 0, 0

    def enter(self) -> None:
        with self.lock:
            if self.n_users == 0:
                self.limit_before = mx.set_wired_limit(int(mx.device_info()["max_recommended_working_set_size"]))
            self.n_users += 1

    def leave(self) -> None:
        with self.lock:
            self.n_users -= 1
            if self.n_users == 0:
                mx.synchronize()  # the limit must not change while the GPU computes
                mx.set_wired_limit(self.limit_before)


_wired = _Wired()


@contextmanager
def wired_memory() -> Iterator[None]:
    """Let Metal keep weights and cache resident within, so that no step waits for them.

    Uses may overlap: the limit from before comes back with the end of the last one.
    """
    if kernels.on_cpu() or not mx.metal.is_available():
        yield
        return
    _wired.enter()
    try:
        yield
    finally:
        _wired.leave()


def _linux_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(fields[0][1]) * 1024 if fields else None


def _cgroup_available() -> int | None:
    """Return the least memory that the control groups of this process leave; None if no limit."""
    return min((left for folder in _cgroups() if (left := _left_in(folder)) is not None), default=None)


def _cgroups() -> list[Path]:
    """Return the folders of the control group of this process and of all its parents.

    In a container the path may be the one outside the container, which does not exist inside. The container's own
    group is then the mounted root.
    """
    try:
        lines = OWN_CGROUP.read_text().splitlines()
    except OSError:
        return [CGROUP]
    path = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), "")
    folder = CGROUP / path
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(CGROUP))]


def _left_in(folder: Path) -> int | None:
    """Return the memory that a group's limit leaves; cached files can be dropped and are free."""
    try:
        limit, used = (folder / "memory.max").read_text(), (folder / "memory.current").read_text()
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
    return None if limit.strip() == "max" else max(0, int(limit) - int(used) + cached)

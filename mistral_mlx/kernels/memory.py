"""Memory that is there and memory that was used, in bytes; knows nothing of models."""

import os
import resource
import sys
from pathlib import Path

import mlx.core as mx

from mistral_mlx import kernels

CGROUP = Path("/sys/fs/cgroup")


def available_memory() -> int | None:
    """Return how much memory new arrays can take without swapping, or None where the system does not say.

    On Linux the kernel's estimate, within the limit of the control group; on a GPU what Metal recommends as the
    largest working set; elsewhere all physical memory.
    """
    if not kernels.on_cpu():
        return int(mx.device_info()["max_recommended_working_set_size"])
    known = [n for n in (_linux_available(), _cgroup_available()) if n is not None]
    if known:
        return min(known)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def peak_memory() -> int:
    """Return the most memory this process has held: MLX's own count on a GPU, resident memory on a CPU.

    Resident are mapped weights too, as far as they were read, though other processes share them.
    """
    if not kernels.on_cpu():
        return int(mx.get_peak_memory())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _linux_available() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    fields = [line.split() for line in lines if line.startswith("MemAvailable:")]
    return int(fields[0][1]) * 1024 if fields else None


def _cgroup_available() -> int | None:
    """Return what the limit leaves; cached files, weights among them, count as used but make room when asked to."""
    try:
        limit, used = (CGROUP / "memory.max").read_text(), (CGROUP / "memory.current").read_text()
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
    except OSError:
        return None
    cached = int(stat.get("active_file", 0)) + int(stat.get("inactive_file", 0))
    return None if limit.strip() == "max" else max(0, int(limit) - int(used) + cached)

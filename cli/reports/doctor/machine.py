"""The checks of ``doctor`` on what computes: MLX, its devices, the native kernels, the processor and the memory."""

import os
from importlib import metadata
from pathlib import Path

from mistral_mlx.cli.terminal.table import gigabytes
from mistral_mlx.errors import OptionError, counted

from .findings import Findings
from .installation import reinstalled, requirement_of, why

CPUINFO = Path("/proc/cpuinfo")


def mlx(found: Findings) -> None:
    """Import MLX, compute something, and say on which device."""
    try:
        found.facts["version"] = metadata.version("mlx")
        import mlx.core as mx

        gpu = mx.is_available(mx.Device(mx.gpu))
        device = "gpu" if mx.default_device() == mx.Device(mx.gpu) else "cpu"
        works = (mx.ones(2) + 1).tolist() == [2, 2]
    except Exception as error:  # of a library that does not fit the system, anything
        found.fault(f"mlx does not work: {why(error)}", reinstalled(requirement_of("mlx")))
        return
    found.facts |= {"gpu": gpu, "default_device": device}
    version = found.facts["version"]
    if not works:
        found.fault(f"mlx {version} computes wrong results on the {device}", reinstalled(requirement_of("mlx")))
        return
    found.ok(f"{version}, computes on the {device.upper()}" + ("" if gpu else "; it finds no GPU here"))


def kernels(found: Findings) -> None:
    """Say which native kernels compute on the CPU, or why none do."""
    try:
        from mistral_mlx import kernels as chosen
        from mistral_mlx.kernels import native
    except OptionError as error:
        found.fault(str(error))
        return
    except Exception as error:  # MLX, which has its own line
        found.note(f"not looked at, because they need mlx: {why(error)}")
        return
    forced = os.environ.get("MISTRAL_MLX_KERNELS") or None
    found.facts = {"built": native.built, "available": native.available, "forced": forced}
    found.facts |= {"name": native.ext.name() if native.built else None, "missing": native.missing or None}
    if not chosen.on_cpu():
        found.ok(f"not used, because the GPU computes ({chosen.names()})")
    elif native.available:
        _try(found)
    elif native.built:
        found.note(f"none are used: {native.missing}; products take several times as long")
    else:
        found.fault(
            f"none are used, which is many times slower: {native.missing}",
            f"install a C++ compiler ({native.COMPILER}), then {reinstalled().removeprefix('run: ')}",
        )


def processor(found: Findings) -> None:
    """Say which processor this is, and how many threads compute."""
    total = os.cpu_count()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else total
    name, threads = _processor(), _threads()
    found.facts = {"name": name, "cores": total, "usable": usable, "threads": threads}
    text = f"{name or 'unknown'}, {usable} of {counted(total or 0, 'core')} may be used"
    found.ok(text + (f", {counted(threads, 'thread')} compute" if threads else ""))


def memory(found: Findings) -> None:
    """Say how much memory there is, and how much of it a model can take."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found.facts = {"total": total, "available": None}
    try:
        from mistral_mlx.kernels.memory import available_memory

        available = available_memory()
    except OptionError as error:  # a variable that it reads
        found.fault(str(error))
        return
    except Exception as error:  # MLX, which has its own line
        found.note(f"{gigabytes(total)}; how much is available cannot be said without mlx: {why(error)}")
        return
    found.facts["available"] = available
    found.ok(f"{gigabytes(total)}, {gigabytes(available) if available is not None else 'unknown'} available")


def _try(found: Findings) -> None:
    """Compute with the native kernels: built for another MLX they load, but fail with its arrays."""
    import mlx.core as mx

    from mistral_mlx import kernels as chosen

    try:
        works = bool(mx.allclose(chosen.rms_norm(mx.full((1, 8), 2.0), mx.ones(8), 1e-6), mx.ones((1, 8)), atol=1e-3))
    except Exception as error:
        found.fault(f"{chosen.names()} do not work with this mlx: {why(error)}", reinstalled())
        return
    if works:
        found.ok(chosen.names())
    else:
        found.fault(f"{chosen.names()} compute wrong results", reinstalled())


def _threads() -> int | None:
    """Return how many threads of ours compute; None if MLX or the kernels do not work, which have their own lines."""
    try:
        from mistral_mlx import kernels as chosen

        return chosen.threads()
    except Exception:
        return None


def _processor() -> str | None:
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), None)

"""The checks of ``doctor`` on the program, Python, and the packages that the program needs."""

import json
import os
import shlex
import sys
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mistral_mlx.errors import counted
from mistral_mlx.version import __version__

from .findings import Findings

if TYPE_CHECKING:
    from packaging.requirements import Requirement

PROGRAM = "mistral-mlx"
# Another check imports mlx. mlx-lm takes seconds, and gguf imports requests, which opens a socket to look for IPv6.
NOT_IMPORTED = ("mlx", "mlx-lm", "gguf")


def program(found: Findings) -> None:
    """Say which version this is, and on which system."""
    system = os.uname()
    libc = os.confstr("CS_GNU_LIBC_VERSION") if "CS_GNU_LIBC_VERSION" in os.confstr_names else None
    found.facts = {"version": __version__, "system": system.sysname, "release": system.release}
    found.facts |= {"machine": system.machine, "libc": libc}
    found.ok(", ".join(filter(None, [__version__, f"{system.sysname} {system.release} {system.machine}", libc])))


def python(found: Findings) -> None:
    """Say which Python runs, and what kind of environment it is in."""
    version, implementation, kind = sys.version.split()[0], sys.implementation.name, environment()
    editable = _is_editable()
    found.facts = {"version": version, "implementation": implementation, "executable": sys.executable}
    found.facts |= {"environment": kind, "editable": editable}
    where = f"{sys.executable} ({kind}{', editable install' if editable else ''})"
    found.ok(f"{implementation} {version}, {where}")


def packages(found: Findings) -> None:
    """Compare the installed packages with the ranges that the program's own metadata names, and import them."""
    try:
        here = _requirements()
    except metadata.PackageNotFoundError:
        found.note("the program runs without being installed, so nothing says which packages it needs")
        return
    except ImportError:
        found.note("the versions are not compared: the package packaging is not installed")
        return
    fine = [text for requirement in here if (text := _checked(found, requirement))]
    if len(fine) == len(here):
        found.ok(f"{counted(len(fine), 'package')}, as required: {', '.join(fine)}")
    elif fine:
        found.ok(", ".join(fine))


def environment() -> str:
    """Return what kind of environment this Python is in."""
    prefix = Path(sys.prefix)
    if (prefix / "uv-receipt.toml").exists():
        return "uv tool"
    if (prefix / "pipx_metadata.json").exists():
        return "pipx"
    if (prefix / "conda-meta").exists():
        return "conda"
    return "the system's Python" if sys.prefix == sys.base_prefix else "virtual environment"


def reinstalled(requirement: str = "") -> str:
    """Return the advice that installs a package again, or without one the whole program."""
    kind = environment()
    if kind == "uv tool":
        return f"run: uv tool upgrade --reinstall {PROGRAM}"
    if kind == "pipx":
        return f"run: pipx reinstall {PROGRAM}"
    if not requirement:
        return f"install {PROGRAM} again"
    python = shlex.quote(sys.executable)
    pip = f"{python} -m pip install" if find_spec("pip") else f"uv pip install --python {python}"
    return f"run: {pip} --force-reinstall {shlex.quote(requirement)}"


def requirement_of(package: str) -> str:
    """Return what the program requires of a package on this system, as pip takes it; its name if that is unknown."""
    try:
        return next((_as_text(required) for required in _requirements() if required.name == package), package)
    except (ImportError, metadata.PackageNotFoundError):
        return package


def why(error: BaseException) -> str:
    """Return the message of an error that can be any, on one line, or its class if there is none."""
    return " ".join(str(error).split()) or type(error).__name__


def _requirements() -> "list[Requirement]":
    """Return what the program requires on this system. Raises ImportError or PackageNotFoundError."""
    from packaging.requirements import Requirement

    required = [Requirement(text) for text in metadata.requires(PROGRAM) or []]
    return [r for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]


def _checked(found: Findings, requirement: "Requirement") -> str:
    """Return name and version of a package that is as required and can be imported; else add a fault."""
    name, required = requirement.name, str(requirement.specifier)
    try:
        version = metadata.version(name)
    except metadata.PackageNotFoundError:
        version = ""
    fits = bool(version) and requirement.specifier.contains(version, prereleases=True)
    found.facts[name] = {"installed": version or None, "required": required, "fits": fits}
    if not fits:
        what = f"{name} {version} is installed, but {required} is needed" if version else f"{name} is not installed"
        found.fault(what, reinstalled(_as_text(requirement)))
        return ""
    if name not in NOT_IMPORTED:
        try:
            import_module(name.replace("-", "_"))
        except Exception as error:  # a broken package can raise anything
            found.fault(f"{name} {version} cannot be imported: {why(error)}", reinstalled(_as_text(requirement)))
            return ""
    return f"{name} {version}"


def _as_text(requirement: "Requirement") -> str:
    extras = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{extras}{requirement.specifier}"


def _is_editable() -> bool:
    """Return whether the program runs from its sources, as `pip install -e` leaves it."""
    try:
        text = metadata.distribution(PROGRAM).read_text("direct_url.json")
        return bool(json.loads(text or "{}").get("dir_info", {}).get("editable"))
    except (metadata.PackageNotFoundError, OSError, ValueError, AttributeError):
        return False

"""The compiled kernels: loads the extension and selects the set that MISTRAL_MLX_KERNELS names.

Raises OptionError on import if that variable names a set that this CPU cannot run.
"""

import os
import sys

import mlx.core  # noqa: F401  # loads the library that the extension is linked against

from mistral_mlx.errors import OptionError, shown

FORCED = os.environ.get("MISTRAL_MLX_KERNELS") or None  # for tests and comparisons
COMPILER = "xcode-select --install" if sys.platform == "darwin" else "apt install g++"


def _require_usable(usable: list[str]) -> None:
    if FORCED is not None and FORCED not in usable:
        known = f"this CPU can run: {', '.join(usable)}" if usable else "no native kernels are built, so unset it"
        raise OptionError(f"MISTRAL_MLX_KERNELS is {shown(FORCED)}; {known}")


built = False  # whether the extension exists, for the work that plain C++ does well enough
missing = ""  # why no native kernels are used, for people to read
advice = ""  # what a user can do about it
try:
    from . import _ext as ext
except ImportError as error:
    missing, advice = str(error), "reinstall mistral-mlx"
    if "cannot import name" in missing:  # there is no such file
        missing = "they were not built when it was installed"
        advice = f"install a C++ compiler ({COMPILER}) and reinstall mistral-mlx"
    _require_usable([])
else:
    built = True
    _require_usable(ext.sets())
    if FORCED is not None:
        ext.select(FORCED)
    if ext.name() == "portable" and FORCED is None:
        missing = "there are none for this CPU yet"  # plain C++ is the oracle of the others, and no faster than NumPy
available = not missing

__all__ = ["advice", "available", "built", "ext", "missing"]

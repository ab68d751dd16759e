"""The compiled kernels, if they are there and fit this CPU; knows nothing of what is computed with them."""

import os

import mlx.core  # noqa: F401  # loads the library that the extension is linked against

FORCED = os.environ.get("MISTRAL_MLX_KERNELS")  # which instruction set, for tests; read by the extension

built = False  # whether the extension is there at all, for what plain C++ does well enough
missing = ""  # why there are none, for people to read
try:
    from . import _ext as ext
except ImportError as error:
    missing = "they were not built when it was installed" if "cannot import name" in str(error) else str(error)
else:
    built = True
    if ext.name() == "portable" and FORCED is None:
        missing = "there are none for this CPU yet"  # plain C++ is the oracle of the others, and no faster than NumPy
available = not missing

__all__ = ["available", "built", "ext", "missing"]

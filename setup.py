"""Builds the native CPU kernels; without a compiler the installation goes on without them.

With MISTRAL_MLX_REQUIRE_KERNELS=1, for wheels, it ends there instead. `make wheel` sets it.
"""

import os
import shutil
import subprocess
import sys
import tempfile

from setuptools import setup
from setuptools.command.build import build

try:
    from mlx.extension import CMakeBuild, CMakeExtension
except ImportError:  # mlx does not exist for this platform, so the kernels cannot be built
    setup()
    sys.exit()

REQUIRED = os.environ.get("MISTRAL_MLX_REQUIRE_KERNELS", "0") != "0"


class FreshBuild(build):
    """Begins with an empty folder: an earlier build may have left modules there that are gone now."""

    def run(self) -> None:
        shutil.rmtree(self.build_lib, ignore_errors=True)
        super().run()


class OptionalBuild(CMakeBuild):
    """Builds the kernels if possible: without them mistral_mlx runs slowly and tells the user."""

    def run(self) -> None:
        if shutil.which("ninja"):  # a package from the index; make is none, and a compiler may come without it
            os.environ.setdefault("CMAKE_GENERATOR", "Ninja")
        try:
            with tempfile.TemporaryDirectory() as self.build_temp:  # CMake would find the tools of an earlier build
                super().run()
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            if REQUIRED:
                raise
            self.warn(f"the native kernels could not be built and are left out: {error}")
            self.extensions = []


setup(
    ext_modules=[CMakeExtension("mistral_mlx.kernels._ext", sourcedir="mistral_mlx/kernels/src")],
    cmdclass={"build": FreshBuild, "build_ext": OptionalBuild},
)

"""Builds the native CPU kernels; everything else is in pyproject.toml. Without a compiler the install goes on."""

import subprocess
import sys

from setuptools import setup

try:
    from mlx.extension import CMakeBuild, CMakeExtension
except ImportError:  # no mlx for this platform, so nothing to build against
    setup()
    sys.exit()


class OptionalBuild(CMakeBuild):
    """Builds the kernels if it can: mistral_mlx runs without them, slowly, and says so."""

    def run(self) -> None:
        try:
            super().run()
        except (OSError, subprocess.SubprocessError, RuntimeError) as error:
            self.warn(f"the native kernels could not be built and are left out: {error}")
            self.extensions = []


setup(
    ext_modules=[CMakeExtension("mistral_mlx.kernels._ext", sourcedir="mistral_mlx/kernels/src")],
    cmdclass={"build_ext": OptionalBuild},
)

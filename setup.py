"""Builds the native CPU kernels; without a compiler the installation goes on without them."""

import subprocess
import sys

from setuptools import setup

try:
    from mlx.extension import CMakeBuild, CMakeExtension
except ImportError:  # mlx does not exist for this platform, so the kernels cannot be built
    setup()
    sys.exit()


class OptionalBuild(CMakeBuild):
    """Builds the kernels if possible: without them mistral_mlx runs slowly and tells the user."""

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

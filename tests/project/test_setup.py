"""What an installation does where the native kernels cannot be built, and with what an earlier one left."""

import runpy
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

SETUP = Path(__file__).parents[2] / "setup.py"


class BrokenBuild:
    """Stands for mlx.extension.CMakeBuild on a machine without a compiler."""

    def __init__(self):
        self.extensions, self.warnings = ["the kernels"], []

    def run(self):
        raise RuntimeError("no compiler")

    def warn(self, text):
        self.warnings.append(text)


class Build:
    """Stands for setuptools' build, which copies modules to `build_lib` and removes none."""

    def __init__(self, build_lib):
        self.build_lib = build_lib

    def run(self):
        self.build_lib.mkdir()


@pytest.fixture
def commands(monkeypatch):
    """Return a function that returns the classes of commands which setup.py gives to setuptools."""
    given = {}
    stand_ins = {
        "setuptools": {"setup": lambda **keywords: given.update(keywords)},
        "setuptools.command.build": {"build": Build},
        "mlx.extension": {"CMakeBuild": BrokenBuild, "CMakeExtension": lambda name, sourcedir: SimpleNamespace()},
    }
    for name, parts in stand_ins.items():
        module = ModuleType(name)
        vars(module).update(parts)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setenv("PATH", "")

    def run():
        runpy.run_path(str(SETUP))
        return given["cmdclass"]

    return run


def test_without_a_compiler_it_goes_on_without_kernels_and_says_so(commands):
    build = commands()["build_ext"]()
    build.run()
    assert build.extensions == []
    assert build.warnings == ["the native kernels could not be built and are left out: no compiler"]


def test_a_wheel_is_not_made_without_kernels(commands, monkeypatch):
    monkeypatch.setenv("MISTRAL_MLX_REQUIRE_KERNELS", "1")
    with pytest.raises(RuntimeError, match="no compiler"):
        commands()["build_ext"]().run()


def test_what_an_earlier_build_left_is_not_installed(commands, tmp_path):
    left = tmp_path / "lib" / "old_module.py"
    left.parent.mkdir()
    left.touch()
    commands()["build"](left.parent).run()
    assert not left.exists()

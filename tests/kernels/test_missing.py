"""What a user reads where the native kernels are not."""

import subprocess
import sys

WITHOUT = """
import sys

class Missing:
    def find_spec(name, path=None, target=None):
        if name == "mistral_mlx.kernels._ext":
            raise {error}

sys.meta_path.insert(0, Missing)
import mlx.core as mx
from mistral_mlx import kernels

mx.set_default_device(mx.cpu)
print(kernels.note())
"""
SLOW = "running without the native CPU kernels, many times slower: "


def note_after(error):
    command = [sys.executable, "-c", WITHOUT.format(error=error)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_kernels_that_were_not_built_need_a_compiler():
    compiler = "xcode-select --install" if sys.platform == "darwin" else "apt install g++"
    assert note_after("ModuleNotFoundError(name=name)") == (
        f"{SLOW}they were not built when it was installed; "
        f"install a C++ compiler ({compiler}) and reinstall mistral-mlx"
    )


def test_kernels_that_cannot_be_loaded_are_to_be_installed_again():
    said = note_after("ImportError('libmlx.so: no such file')")
    assert said == f"{SLOW}libmlx.so: no such file; reinstall mistral-mlx"

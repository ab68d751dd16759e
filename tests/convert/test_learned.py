"""mlx-lm's methods: refusals, and a process that fails, is stopped or loses its parent.

tests/convert/test_mlx_lm.py tests their results.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from helpers.convert_sources import CONFIG, write_folder
from helpers.tokenizer_files import byte_level_json, write_json

from mistral_mlx.convert import convert
from mistral_mlx.convert.write import mlx_lm
from mistral_mlx.errors import ConversionError, OptionError

TOKENIZER = json.loads(byte_level_json())
VOCABULARY = 1 + max(TOKENIZER["model"]["vocab"].values())
ROOT = Path(__file__).parents[2]
MAIN = "from mistral_mlx.cli.main import main; main()"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    folder = write_folder(tmp_path / "source", {**CONFIG, "vocab_size": VOCABULARY, "max_position_embeddings": 64})
    write_json(folder, "tokenizer.json", TOKENIZER)
    return folder


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text.txt").write_text("The quick brown fox jumps over the lazy dog, and the dog sleeps on. " * 10)
    return tmp_path / "text.txt"


def instead(monkeypatch: pytest.MonkeyPatch, code: str) -> None:
    """Let other code run in place of mlx-lm."""
    monkeypatch.setattr(mlx_lm, "COMMAND", (sys.executable, "-c", code))


@contextmanager
def begun(*arguments: object) -> Iterator[tuple["subprocess.Popen[str]", psutil.Process]]:
    """A conversion by the command line, and the process of mlx-lm's that it has begun."""
    command = [sys.executable, "-c", MAIN, "convert", *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as parent:
        try:
            children: list[psutil.Process] = []
            while not children and parent.poll() is None:
                children = psutil.Process(parent.pid).children()
                time.sleep(0.01)
            yield parent, children[0]
        finally:
            parent.kill()


def is_running(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "gptq", "bits": 3}, "makes 2, 4 or 8 bits, not 3"),
        ({"method": "dwq", "bits": 8}, "makes 2, 3, 4, 5 or 6 bits, not 8"),
        ({"method": "awq", "mode": "mxfp4"}, "leave out mode"),
        ({"method": "awq", "recipe": "mixed_3_6"}, "leave out mode, recipe"),
        ({"method": "gptq", "rules": ["lm_head=8"]}, "leave out mode, recipe, rules"),
        ({"method": "gptq", "target_bpw": 4.5}, "target_bpw"),
        ({"method": "gptq", "dequantize": True}, "dequantize"),
        ({"method": "gptq", "dry_run": True}, "--dry-run"),
        ({"method": "gptq", "calibrate": None}, "--calibrate"),
        ({"method": "dwq", "group_size": 128}, "has 192 columns, no multiple of the group size 128"),
    ],
)
def test_what_mlx_lm_cannot_do_is_refused_before_it_begins(
    tmp_path: Path, text: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, object], message: str
) -> None:
    instead(monkeypatch, "raise SystemExit('it has begun')")
    config = {**CONFIG, "vocab_size": VOCABULARY, "max_position_embeddings": 64, "intermediate_size": 192}
    source = write_folder(tmp_path / "source", config)
    write_json(source, "tokenizer.json", TOKENIZER)
    with pytest.raises(OptionError, match=message) as raised:
        convert(source, tmp_path / "target", **{"calibrate": text, **options})
    assert "\n" not in str(raised.value) and sorted(tmp_path.iterdir()) == [source, text]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("print('1 2 x', flush=True); raise ValueError('no such model')", r"AWQ failed \(ValueError: no such model\)"),
        ("import os; os.kill(os.getpid(), 9)", "AWQ was killed, perhaps because the memory"),
        ("import os; os.abort()", r"AWQ failed \(.+\)"),
        ("raise SystemExit(3)", r"AWQ failed \(status 3\)"),
    ],
)
def test_a_failure_of_mlx_lm_is_one_line_and_leaves_nothing(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, message: str
) -> None:
    instead(monkeypatch, code)
    with pytest.raises(ConversionError, match=message) as raised:
        convert(source, tmp_path / "target", method="awq", calibrate=text)
    assert "\n" not in str(raised.value) and sorted(tmp_path.iterdir()) == [source, text]


def test_ctrl_c_ends_the_process_and_leaves_nothing(
    source: Path, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    instead(monkeypatch, "import time; print('0 1 GPTQ: begun', flush=True); time.sleep(60)")

    def stop(name: str, done: int, total: int) -> None:
        if name == "GPTQ: begun":
            raise KeyboardInterrupt

    before = psutil.Process().children()  # multiprocessing leaves a process that other tests began
    with pytest.raises(KeyboardInterrupt):
        convert(source, tmp_path / "target", method="gptq", calibrate=text, progress=stop)
    assert psutil.Process().children() == before and sorted(tmp_path.iterdir()) == [source, text]


def test_sigterm_ends_both_processes_and_leaves_nothing(source: Path, text: Path, tmp_path: Path) -> None:
    with begun(source, tmp_path / "target", "--method", "dwq", "--calibrate", text) as (parent, child):
        parent.send_signal(signal.SIGTERM)
        _, said = parent.communicate(timeout=60)
    assert parent.returncode == 128 + signal.SIGTERM and "nothing half-written is left" in said
    assert not is_running(child) and sorted(tmp_path.iterdir()) == [source, text]


def test_without_its_parent_the_process_ends(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / mlx_lm.JOB)  # nobody ever writes to it, so that there is all the time of the world
    with subprocess.Popen(mlx_lm.COMMAND, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=-1) as child:
        try:
            assert child.stdin is not None
            child.stdin.close()  # as the death of the parent does
            assert child.wait(timeout=60) == 1
        finally:
            child.kill()

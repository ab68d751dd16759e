"""What reaches a terminal is inert, what reaches a pipe is exact."""

import io
import json

import pytest

from mistral_mlx.cli.convert import default_target
from mistral_mlx.cli.registry import register, registered
from mistral_mlx.cli.terminal import PrefillProgress, inert, write_text
from mistral_mlx.errors import ModelError, shown

HOSTILE = "\x1b]52;c;x\x07\x1b[2J\rA\x08\x00\x7f\x9b1m[bold]\ttab\nnext"


class Screen(io.StringIO):
    def isatty(self):
        return True


def test_text_for_a_terminal_is_inert(monkeypatch):
    screen = Screen()
    monkeypatch.setattr("sys.stdout", screen)
    write_text(HOSTILE)
    assert screen.getvalue() == "␛]52;c;x␇␛[2J␍A␈␀␡<9b>1m[bold]\ttab\nnext"


def test_text_for_a_pipe_is_exact(monkeypatch):
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stdout", pipe)
    write_text(HOSTILE)
    assert pipe.getvalue() == HOSTILE


@pytest.mark.parametrize("text", ["plain", "emoji 👩‍👩‍👧 and ümlaut", "日本語"])
def test_ordinary_text_is_left_alone(text):
    assert inert(text) == text


def test_progress_appears_after_a_while_and_is_wiped(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    screen = Screen()
    progress = PrefillProgress(screen)
    progress(0, 2000)
    now[0] = 2.0
    progress(512, 2000)
    progress(2000, 2000)
    shown_line = "reading the prompt: 512 of 2000 tokens"
    assert screen.getvalue() == f"\r{shown_line}\r{' ' * len(shown_line)}\r"


def test_progress_in_a_pipe_is_silent(monkeypatch):
    pipe = io.StringIO()
    progress = PrefillProgress(pipe)
    monkeypatch.setattr(progress, "DELAY_S", -1)
    progress(512, 2000)
    assert pipe.getvalue() == ""


def test_messages_show_foreign_text_inert_and_short():
    assert shown("a\x1b[2Jb\n") == r"a\x1b[2Jb\x0a"
    assert len(shown("x" * 1000)) == 81


def test_a_broken_registry_is_named(tmp_path):
    register("a", tmp_path)
    assert registered() == {"a": tmp_path.resolve()}
    (tmp_path / "home" / "models.json").write_text(json.dumps(["a"]))
    with pytest.raises(ModelError, match=r"models\.json"):
        registered()


def test_a_target_is_called_after_its_source(tmp_path):
    assert default_target(tmp_path / "m", 8) == tmp_path / "m-mlx-8bit"
    assert default_target(tmp_path / "m.gguf", None) == tmp_path / "m-mlx"

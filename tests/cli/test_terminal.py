"""Text for a terminal is inert; text for a pipe is exact."""

import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mistral_mlx.cli.models.registry import register, registered
from mistral_mlx.cli.reports.convert import default_target
from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.streams import PrefillProgress, write_text
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


@pytest.mark.parametrize("last", [2000, 1024])
def test_progress_appears_after_a_while_and_is_wiped_at_the_end_and_by_an_interrupt(monkeypatch, last):
    monkeypatch.setattr(PrefillProgress, "DELAY_S", 0.0)
    screen = Screen()
    with PrefillProgress(screen) as progress:
        progress("reading the prompt", 0, 2000)
        while "0 of 2000" not in screen.getvalue():
            time.sleep(0.001)
        progress("reading the prompt", 512, 2000)
        if last == 2000:
            progress("reading the prompt", last, 2000)
    first, second = (f"reading the prompt: {n} of 2000 tokens" for n in (0, 512))
    assert screen.getvalue() == f"\r{first}\r{second}\r{' ' * len(second)}\r"


class SlowScreen(Screen):
    """Says when a write has begun, and ends it when that is allowed."""

    def __init__(self):
        super().__init__()
        self.begun, self.may_end = threading.Event(), threading.Event()

    def write(self, text):
        self.begun.set()
        self.may_end.wait(60)
        return super().write(text)


def test_progress_never_appears_after_its_end(monkeypatch):
    """The line was written by a timer that the end did not wait for, into the answer, and never wiped."""
    monkeypatch.setattr(PrefillProgress, "DELAY_S", 0.0)
    screen = SlowScreen()
    with PrefillProgress(screen) as progress:
        progress("reading the prompt", 0, 10)
        screen.begun.wait(60)
        threading.Timer(0.05, screen.may_end.set).start()
        progress("reading the prompt", 10, 10)
        print("ANSWER", file=screen)
    text = "reading the prompt: 0 of 10 tokens"
    assert screen.getvalue() == f"\r{text}\r{' ' * len(text)}\rANSWER\n"


def test_a_timer_that_is_late_shows_nothing():
    screen = Screen()
    with PrefillProgress(screen) as progress:
        progress("reading the prompt", 0, 10)
        progress("reading the prompt", 10, 10)
        progress._timer.function()
    assert screen.getvalue() == ""


def test_a_short_prefill_shows_nothing():
    screen = Screen()
    with PrefillProgress(screen) as progress:
        progress("reading the prompt", 0, 20)
        progress("reading the prompt", 20, 20)
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO, False), (Screen, True)])
def test_progress_is_silent_in_a_pipe_and_when_quiet(monkeypatch, stream, quiet):
    monkeypatch.setattr(PrefillProgress, "DELAY_S", 0.0)
    output = stream()
    with PrefillProgress(output, quiet=quiet) as progress:
        progress("reading the prompt", 0, 2000)
        time.sleep(0.05)
        progress("reading the prompt", 512, 2000)
    assert output.getvalue() == ""


def test_messages_show_foreign_text_inert_and_short():
    assert shown("a\x1b[2Jb\n") == r"a\x1b[2Jb\x0a"
    assert len(shown("x" * 1000)) == 81


def test_a_broken_registry_is_named(tmp_path, home):
    register("a", tmp_path)
    assert registered() == {"a": tmp_path.resolve()}
    (home / "models.json").write_text(json.dumps(["a"]))
    with pytest.raises(ModelError, match=r"models\.json"):
        registered()


def test_names_that_are_registered_at_once_are_all_kept(tmp_path):
    """Each used to write what it had read before the others wrote: a name was lost."""
    names = [f"model-{n}" for n in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: register(name, tmp_path), names))
    assert sorted(registered()) == sorted(names)


def test_a_target_is_called_after_its_source(tmp_path):
    assert default_target(tmp_path / "m", "8bit") == tmp_path / "m-mlx-8bit"
    assert default_target(tmp_path / "m.gguf", "") == tmp_path / "m-mlx"

"""Text for a terminal is inert; text for a pipe is exact."""

import io
import json
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from mistral_mlx.cli.models.registry import register, registered
from mistral_mlx.cli.reports.convert import default_target
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.sanitize import inert
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import gigabytes, rounded, table
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


READING = "reading the prompt"
WIPED = "\r\x1b[1A\x1b[2K"  # a line up, which is emptied


def terminal(monkeypatch, screen=None):
    """Make stderr a terminal; not in a fixture, after which pytest would set its own."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.stderr", screen or Screen())
    return sys.stderr


@pytest.mark.parametrize("last", [2000, 1024])
def test_progress_appears_after_a_while_and_is_wiped_at_the_end_and_by_an_interrupt(monkeypatch, last):
    screen = terminal(monkeypatch)
    with Notes().progress("tokens", delay_s=0.001) as progress:
        progress(READING, 0, 2000)
        wait_for("reading the prompt: 0 of 2,000 tokens", screen)
        progress(READING, 512, 2000)
        if last == 2000:
            progress(READING, last, 2000)
            assert screen.getvalue().endswith(WIPED)
    assert "reading the prompt: 512 of 2,000 tokens" in screen.getvalue()
    assert screen.getvalue().endswith(WIPED)


def wait_for(text, screen):
    deadline = time.monotonic() + 60
    while text not in screen.getvalue():
        assert time.monotonic() < deadline, screen.getvalue()
        time.sleep(0.001)


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
    slow = terminal(monkeypatch, SlowScreen())
    with Notes().progress("tokens", delay_s=0.001) as progress:
        progress(READING, 0, 10)
        slow.begun.wait(60)
        threading.Timer(0.05, slow.may_end.set).start()
        progress(READING, 10, 10)
        print("ANSWER", file=slow)
    assert slow.getvalue().endswith(f"{WIPED}ANSWER\n")


def test_a_timer_that_is_late_shows_nothing(monkeypatch):
    screen = terminal(monkeypatch)
    with Notes().progress("tokens") as progress:
        progress(READING, 0, 10)
        timer = progress._timer
        progress(READING, 10, 10)
        timer.function()
    assert screen.getvalue() == ""


def test_short_work_shows_nothing(monkeypatch):
    screen = terminal(monkeypatch)
    with Notes().progress("tokens") as progress:
        progress(READING, 0, 20)
        progress(READING, 20, 20)
    assert screen.getvalue() == ""


@pytest.mark.parametrize(("stream", "quiet"), [(io.StringIO, False), (Screen, True)])
def test_progress_is_silent_in_a_pipe_and_when_quiet(monkeypatch, stream, quiet):
    monkeypatch.setattr("sys.stderr", stream())
    with Notes(quiet=quiet).progress("tokens", delay_s=0) as progress:
        progress(READING, 0, 2000)
        progress(READING, 512, 2000)
    assert sys.stderr.getvalue() == ""


def test_a_remark_wipes_the_progress_which_is_drawn_again(monkeypatch):
    screen = terminal(monkeypatch)
    notes = Notes()
    with notes.progress("tokens", delay_s=0) as progress:
        progress(READING, 0, 10)
        notes.say("remark")
        assert screen.getvalue().endswith(f"{WIPED}mistral-mlx: remark\n")
        progress(READING, 1, 10)
        assert "1 of 10 tokens" in screen.getvalue().partition("remark")[2]


def test_the_name_in_progress_is_cut_and_inert_and_the_amount_is_whole(monkeypatch):
    screen = terminal(monkeypatch)
    with Notes().progress("bytes", delay_s=0) as progress:
        progress("\x1b[2J" + "x" * 80, 1_500_000, 30_000_000)
    assert f"␛[2J{'x' * 25}…: 1.5 of 30.0 MB" in screen.getvalue()


@pytest.mark.parametrize(("quiet", "said"), [(False, "mistral-mlx: a b\nc␛\nmistral-mlx: error: d\n"), (True, "")])
def test_quiet_leaves_errors(capsys, quiet, said):
    notes = Notes(quiet=quiet)
    notes.say("a\nb")
    notes.report(["c\x1b"])
    notes.error("d")
    assert capsys.readouterr().err == (said or "mistral-mlx: error: d\n")


def test_a_table_has_its_cells_below_each_other():
    assert table([("NAME", "PATH"), ("a", "b\x1b"), ("longer", "")]) == "NAME    PATH\na       b␛\nlonger\n"
    assert table([("a", "b"), ("longer", "c")], max_width=3) == "a    b\nlonger  c\n"


def test_sizes_are_in_gigabytes_from_one_on():
    assert [gigabytes(n) for n in (93_400_000, 190_000_000, 4_120_000_000)] == ["93.4 MB", "190.0 MB", "4.12 GB"]


def test_measured_numbers_have_six_digits_and_all_others_stay():
    """Speeds used to have 17."""
    record = {"tps": 616.6241308762069, "n": 98449920, "near": [(1e-9 / 3, None)], "name": "a"}
    assert rounded(record) == {"tps": 616.624, "n": 98449920, "near": [[3.33333e-10, None]], "name": "a"}


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

"""Chats are saved, listed, resumed, and limited by their context."""

import datetime
import json
import os
import re
import stat
from pathlib import Path

import pytest
from helpers.chat import SAID, SIX, chat, said, saved, spoken
from helpers.cli import one_line, run
from helpers.tiny_folder import repeat_forever, write_tiny_folder

from mistral_mlx.cli.chat.store import Store


def test_a_session_is_saved_after_every_turn_and_resumed(endless, home):
    chat(endless, "What is the window?\n/set temperature 0.5\n/save mine\n")
    names = sorted(path.stem for path in (home / "sessions").glob("*.json"))
    assert "mine" in names and re.fullmatch(r"\d{4}-\d\d-\d\d-what-is-the-window", names[0])
    assert stat.S_IMODE((home / "sessions").stat().st_mode) == 0o700
    again = run("chat", "--resume", "mine", "--max-tokens", "6", input=b"more\n/set\n/sessions\n")
    assert again.stdout == SAID, again.stderr
    lines = "\n".join(said(again))
    assert "resumed, 1 turn" in lines
    assert "  max_tokens   6\n  temperature  0.5\n" in lines or "  temperature  0.5\n  max_tokens   6\n" in lines
    last = run("chat", "-c", "-m", endless, *SIX, "--stats", input=b"/load mine\nand\n/load nope\n")
    assert "resumed, 2 turns" in last.stderr.decode()
    assert spoken_in(home / "sessions" / "mine.json")[::2] == ["What is the window?", "more", "and"]


def spoken_in(path):
    return [message["content"] for message in json.loads(path.read_text())["messages"]]


def test_another_models_session_is_one_clear_line(endless, home, tmp_path):
    chat(endless, "one\n/save mine\n")
    other = write_tiny_folder(tmp_path / "other", seed=1)
    result = run("chat", "-m", other, "--resume", "mine", input=b"two\n")
    assert result.returncode == 3
    assert len(result.stderr.splitlines()) == 1 and b"another model" in result.stderr


@pytest.mark.parametrize("command", ["/plain", "/set plain on"])
def test_plain_is_saved_with_the_session(endless, home, command):
    """/plain used to change the setting without saving it."""
    chat(endless, f"one\n{command}\n", "--quiet")
    assert saved(home)["settings"]["plain"] is True


def test_a_damaged_session_is_named_and_listed(endless, home):
    """It used to be `which model?` when resumed, and missing in the list."""
    chat(endless, "one\n")
    (broken := home / "sessions" / "broken.json").write_text('{"format": ')
    os.utime(broken, (0, 0))
    result = run("chat", "--resume", "broken", input=b"two\n")
    assert (result.returncode, result.stdout) == (3, b"")
    expected = rf"error: the session {broken} is damaged: .*line 1 .*; delete the file or take another session"
    assert re.fullmatch(expected, one_line(result.stderr).removeprefix("mistral-mlx: "))
    listed = said(run("chat", "-c", "--quiet", input=b"/sessions\n"))
    assert len(listed) == 2 and re.match(r" +damaged +broken +\(the session .*broken\.json is damaged: ", listed[1])


def test_a_session_has_a_name_after_a_thousand_others_of_its_day_and_words(endless, home):
    """The thousandth used to be an error without a text."""
    (folder := home / "sessions").mkdir()
    stem = f"{datetime.date.today().isoformat()}-one"
    for name in (stem, *(f"{stem}-{n}" for n in range(2, 1001))):
        (folder / f"{name}.json").touch()
    assert chat(endless, "one\n", "--quiet").stderr == b""
    assert spoken_in(folder / f"{stem}-1001.json")[0] == "one"


def test_names_are_listed_while_another_program_removes_sessions(tmp_path, monkeypatch):
    """A file that was removed between two looks at it used to be an error."""
    (gone := tmp_path / "gone.json").touch()
    status_of = Path.stat

    def last_look(path, **options):
        status = status_of(path, **options)
        if path == gone:
            os.unlink(gone)
        return status

    with monkeypatch.context() as patch:
        patch.setattr(Path, "stat", last_look)
        names = Store(tmp_path).names()
    assert names == ["gone"]


def test_nothing_is_saved_where_that_is_not_wanted(endless, home):
    chat(endless, "one\n", "--no-save", "--no-history")
    assert not (home / "sessions").exists()


def test_answers_go_on_where_nothing_can_be_saved(endless, home):
    (home / "sessions").parent.mkdir(parents=True, exist_ok=True)
    (home / "sessions").write_text("in the way")
    result = chat(endless, "one\ntwo\n")
    assert result.stdout == b"the the the the the the\n" * 2
    assert b"sessions cannot be made (File exists); nothing is saved" in result.stderr
    assert result.returncode == 0


def test_clear_begins_a_session_of_its_own(endless, home):
    chat(endless, "one\n/clear\ntwo\n")
    assert sorted(spoken_in(path)[0] for path in (home / "sessions").glob("*.json")) == ["one", "two"]


def test_another_model_goes_on_with_the_conversation(endless, home, tmp_path):
    other = repeat_forever(write_tiny_folder(tmp_path / "other"), piece="e")
    result = chat(endless, f"one\n/model {other}\ntwo\n")
    assert result.stdout == SAID + b"eeeeee\n"
    assert spoken(home)[::2] == ["one", "two"]


@pytest.mark.parametrize(("policy", "status", "n_answers"), [("drop-turns", 0, 9), ("stop", 4, 2)])
def test_a_full_context_drops_the_oldest_turns_or_stops(tmp_path, policy, status, n_answers):
    short = repeat_forever(write_tiny_folder(tmp_path / "short", sliding_window=None, max_position_embeddings=60))
    result = chat(short, "Hello\n" * 9, "--on-overflow", policy)
    assert (result.returncode, result.stdout.count(b"\n") >= n_answers) == (status, True)
    assert ("dropped" in result.stderr.decode()) == (policy == "drop-turns")

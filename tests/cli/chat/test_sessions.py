"""Chats are saved, listed, resumed, and limited by their context."""

import datetime
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import time
from pathlib import Path

import pytest
from helpers.chat import SAID, SIX, chat, said, saved, spoken
from helpers.cli import PROGRAM, one_line, run
from helpers.tiny_folder import repeat_forever, write_tiny_folder

from mistral_mlx.cli.chat.cache_times import CacheTimes
from mistral_mlx.cli.chat.store import Store
from mistral_mlx.cli.models.registry import register, unregister


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
    text = one_line(result.stderr)
    assert f"the session mine was saved with another model, {endless}; open it with that one" in text


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
    assert len(listed) == 2 and re.match(r" +damaged +broken \(the session .*broken\.json is damaged: ", listed[1])


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


@pytest.mark.parametrize("option", ["--no-save", "--quiet"])
def test_nothing_is_saved_where_that_is_not_wanted_nor_from_a_pipe(endless, home, option):
    run("chat", "-m", endless, *SIX, option, input=b"one\n")
    assert not (home / "sessions").exists()


def test_a_pipe_saves_what_it_names(endless, home):
    run("chat", "-m", endless, *SIX, input=b"one\n/save mine\ntwo\n")
    run("chat", "-c", *SIX, input=b"three\n")
    run("chat", "-c", "--no-save", *SIX, input=b"four\n")
    assert spoken(home)[::2] == ["one", "two", "three"]
    run("chat", "-m", endless, *SIX, input=b"five\n", env={**os.environ, "MISTRAL_MLX_SAVE": "1"})
    assert len(list((home / "sessions").glob("*.json"))) == 2


def test_a_session_goes_on_in_another_folder_and_with_a_new_name_of_its_model(endless, home, tmp_path):
    (tmp_path / "here").symlink_to(endless)
    register("mine", endless)
    for name in ("./here", "mine"):
        run("chat", "-m", name, *SIX, "--quiet", input=f"one\n/save {name[-4:]}\n".encode(), cwd=tmp_path)
    assert "chatting with ./here" in run("chat", "--resume", "here", cwd=tmp_path, input=b"").stderr.decode()
    unregister("mine")
    (home / "elsewhere").mkdir()
    for name in ("here", "mine"):
        again = run("chat", "--resume", name, *SIX, input=b"two\n", cwd=home / "elsewhere")
        assert again.stdout == SAID and f"with {endless}; last answer: the" in again.stderr.decode()


def test_a_session_of_before_is_opened_by_the_name_of_its_model(endless, home):
    chat(endless, "one\n/save mine\n", "--quiet")
    file = home / "sessions" / "mine.json"
    document = json.loads(file.read_text())
    assert document["settings"].pop("folder") == str(endless)
    file.write_text(json.dumps(document))
    assert run("chat", "--resume", "mine", *SIX, "--quiet", input=b"two\n").stdout == SAID
    assert run("chat", "-c", "-m", endless, *SIX, "--quiet", input=b"three\n").stdout == SAID


def test_a_session_whose_model_is_gone_is_told_with_both_names(home, tmp_path):
    folder = repeat_forever(write_tiny_folder(tmp_path / "going"))
    run("chat", "-m", "./going", *SIX, input=b"one\n/save mine\n", cwd=tmp_path)
    shutil.rmtree(folder)
    result = run("chat", "-c", input=b"two\n", cwd=tmp_path)
    text = one_line(result.stderr)
    assert (result.returncode, result.stdout) == (3, b"")
    assert f"the session mine was saved with the model ./going ({folder}), which is gone; name a copy" in text


def test_the_newest_session_of_a_model_goes_on(endless, home, tmp_path):
    other = repeat_forever(write_tiny_folder(tmp_path / "other"), piece="e")
    third = repeat_forever(write_tiny_folder(tmp_path / "third", seed=1))
    register("its-name", endless)
    for model, name in ((endless, "first"), ("its-name", "second"), (other, "third")):
        run("chat", "-m", model, *SIX, input=f"one\n/save {name}\n".encode())
    (home / "sessions" / "broken.json").write_text("{")
    shown = {model: run("chat", "-c", "-m", model, *SIX, input=b"/show\n") for model in (endless, other, third)}
    assert re.search(r"session +second\n", shown[endless].stderr.decode())
    assert re.search(r"session +third\n", shown[other].stderr.decode())
    assert shown[third].returncode == 2
    expected = f"no session is saved with {third}; the last one, third, is with {other}"
    assert expected in one_line(shown[third].stderr)


def test_the_usual_model_does_not_stand_in_the_way_of_a_session(endless, home, tmp_path):
    """A model in the environment or the config file was taken for the one that was asked for."""
    other = write_tiny_folder(tmp_path / "other", seed=1)
    run("chat", "-m", endless, *SIX, input=b"one\n/save mine\n")
    result = run("chat", "-c", *SIX, "--quiet", input=b"two\n", env={**os.environ, "MISTRAL_MLX_MODEL": str(other)})
    assert (result.returncode, result.stdout) == (0, SAID)


def test_answers_go_on_where_nothing_can_be_saved(endless, home):
    (home / "sessions").parent.mkdir(parents=True, exist_ok=True)
    (home / "sessions").write_text("in the way")
    result = chat(endless, "one\ntwo\n", "--quiet")
    assert result.stdout == b"the the the the the the\n" * 2
    assert "sessions cannot be made (File exists); nothing is saved" in one_line(result.stderr)
    assert result.returncode == 5


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


def test_a_cache_is_written_at_the_end_or_after_a_minute_if_reading_takes_a_second(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    times = CacheTimes(since=0.0)
    times.has_read(64, 100.0)
    times.has_read(63, 20.0)  # which many tokens would exceed four times
    assert [times.is_due(n, leaves=True) for n in (0, 99, 100)] == [False, False, True]
    assert not times.is_due(100, leaves=False)
    now[0] = 60.0
    assert [times.is_due(n, leaves=False) for n in (99, 100)] == [False, True]
    times.is_written()
    assert not times.is_due(100, leaves=False)


WRITES_EACH_CACHE = "import mistral_mlx.cli.chat.cache_times as c\nc.WORTH_S = 0.0\n"


@pytest.mark.parametrize("end", ["", "/exit\n", "/clear\n", "/load other\n"])
def test_the_cache_is_on_the_disk_when_a_conversation_is_left_and_not_before(endless, home, end):
    chat(endless, "one\n/save other\n")
    text = f"one\n/save mine\ntwo\n{end}".encode()
    command = [PROGRAM[0], "-c", WRITES_EACH_CACHE + PROGRAM[2], "chat", "-m", str(endless), "--save", *SIX, "--stats"]
    result = subprocess.run(command, input=text, capture_output=True)
    n_read = int(re.findall(rb"prompt (\d+) tokens", result.stderr)[-1])
    again = run("chat", "--resume", "mine", *SIX, "--stats", input=b"three\n").stderr.decode()
    assert int(re.findall(r"\((\d+) cached", again)[0]) > n_read


def test_a_signal_leaves_the_cache_too_and_no_more_than_the_limit_stays(endless, home):
    def killed(name, *options):
        command = [*PROGRAM[:1], "-c", WRITES_EACH_CACHE + PROGRAM[2], "chat", "-m", str(endless), "--save", *SIX]
        with subprocess.Popen([*command, *options], stdin=-1, stdout=-1, stderr=-1) as process:
            process.stdin.write(f"one\n/save {name}\n".encode())
            process.stdin.flush()
            while b"saved as" not in process.stderr.readline():
                pass
            process.send_signal(signal.SIGTERM)
            assert process.wait() == 143
        return sorted(path.name.split(".")[0] for path in (home / "sessions").glob("*.safetensors"))

    assert killed("first") == ["first"]
    assert killed("second", "--cache-limit", "0.000001") == ["first"]
    nbytes = next((home / "sessions").glob("*.safetensors")).stat().st_size
    assert killed("third", "--cache-limit", str(1.5 * nbytes / 1e9)) == ["third"]
    assert killed("fourth", "--no-cache") == ["third"]

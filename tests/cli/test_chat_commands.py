"""The slash commands: whole transcripts from a pipe."""

import datetime
import json
import os
import re
import stat
from pathlib import Path

import pytest
from helpers.chat import SIX, chat, said
from helpers.cli import one_line, run
from helpers.tiny_folder import repeat_forever, write_tiny_folder
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from mistral_mlx.cli.chat import attachments
from mistral_mlx.cli.chat.loop import COMMANDS
from mistral_mlx.cli.chat.settings import NAMES, ChatOptions
from mistral_mlx.cli.chat.store import Store
from mistral_mlx.cli.chat.toolbar import Status, line
from mistral_mlx.cli.chat.words import CommandCompleter
from mistral_mlx.errors import OptionError

SAID = b"the the the the the the\n"


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    return repeat_forever(write_tiny_folder(tmp_path_factory.mktemp("models") / "endless"))


def saved(home):
    (path,) = (home / "sessions").glob("*.json")
    return json.loads(path.read_text())


def spoken(home):
    """Return what is said in the only saved session."""
    return [message["content"] for message in saved(home)["messages"]]


def test_undo_retry_edit_and_continue_change_the_transcript(endless, home):
    steps = (
        "one",
        "two",
        "/undo",
        "/retry",
        "/edit 1",
        "uno",
        "/continue",
        "three",
        "/undo 2",
        "four",
        "/edit",
        "five",
    )
    result = chat(endless, "\n".join(steps), "--quiet")
    answer = SAID.decode().strip()
    assert (result.returncode, result.stderr) == (0, b"")
    assert spoken(home) == ["five", answer]
    assert result.stdout.count(b"\n") == 8  # one two retry uno continue three four five


def test_continue_makes_one_answer_of_two_parts(endless, home):
    chat(endless, "one\n/continue\n")
    assert spoken(home) == ["one", " ".join(["the"] * 12)]


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("/nope", "there is no command /nope"),
        ("/undo", "there is no turn yet"),
        ("/undo x", "'x' is no number"),
        ("/edit", "0 messages to edit"),
        ("/retry", "there is no turn yet"),
        ("/continue", "there is no answer to go on with"),
        ("/set nope 1", "there is no setting nope"),
        ("/set top_p 7", "top_p"),
        ("/set max-tokens x", "whole number"),
        ("/load", "which session"),
        ("/load nope", "there is no session nope"),
        ("/load ../x", "cannot be a session's name"),
        ("/save a/b", "cannot be a session's name"),
        ("/read", "which file"),
        ("/read nope.txt", "there is no file nope.txt"),
        ("/read .", "not a file"),
        ('/read "', "cannot be split"),
        ("/glob", "which files"),
        ("/glob nope*", "no file matches"),
        ("/editor", "needs a terminal"),
        ("/copy", "there are 0 answers"),
        ("/export", "to which file"),
        ("/tokens", "which text"),
        ("/stats", "there is no answer yet"),
        ("/model nope", "no such model"),
    ],
)
def test_a_wrong_command_is_told_so(errors, command, reason):
    assert reason.replace("'", "") in errors[command].replace("'", "")


@pytest.fixture(scope="module")
def errors(endless, tmp_path_factory):
    """What each wrong command says; one run for all, as none of them changes anything."""
    wrong = next(mark.args[1] for mark in test_a_wrong_command_is_told_so.pytestmark)
    home = tmp_path_factory.mktemp("home")
    env = {**os.environ, "MISTRAL_MLX_HOME": str(home)}
    result = run(
        "chat", "-m", endless, *SIX, "--quiet", input="\n".join(c for c, _ in wrong).encode(), env=env, cwd=home
    )
    lines = result.stderr.decode().splitlines()
    assert (result.returncode in (2, 3), result.stdout, len(lines)) == (True, b"", len(wrong)), lines
    assert not (home / "sessions").exists()
    return {command: text for (command, _), text in zip(wrong, lines, strict=True)}


def test_what_is_shown(endless, tmp_path):
    steps = (
        "/system be kind",
        "one",
        "/system",
        "/show",
        "/set top_k 3",
        "/set",
        "/context",
        "/tokens the king",
        "/stats",
    )
    lines = "\n".join(said(chat(endless, "\n".join([*steps, "/plain", "/model", "/system -", "/sessions"]))))
    for text in (
        "system prompt: be kind",
        "top_k 3",
        "max_tokens 6",
        "in a window of 8",
        "1 turn, 0 dropped",
        "='the",
        "first token after",
        "answers are shown as they are written",
        "registered: none",
        "there is no system prompt",
        "1 turn ",
    ):
        assert text in lines
    assert re.search(r"model +\S*endless", lines)


def test_files_go_with_the_next_message_and_only_with_that(endless, home, tmp_path):
    (tmp_path / "a b.txt").write_text("first\n")
    (tmp_path / "c.txt").write_text("second\n")
    (tmp_path / "d.bin").write_bytes(b"\xff\x00")
    (tmp_path / "e.txt").write_bytes(b"a\0b")
    steps = (
        f'/read "{tmp_path}/a b.txt"',
        "/read -",
        f'/read "{tmp_path}/a b.txt"',
        f"/glob {tmp_path}/[c-e]*",
        "/context",
        "ask",
        "more",
    )
    lines = "\n".join(said(chat(endless, "\n".join(steps))))
    message, _, second, _ = spoken(home)
    assert message == f"--- File: {tmp_path}/a b.txt ---\nfirst\n\n--- File: {tmp_path}/c.txt ---\nsecond\n\nask"
    assert second == "more"
    assert "is not UTF-8 text" in lines and "is a binary file" in lines


def test_a_byte_order_mark_is_no_part_of_an_attached_file(tmp_path):
    """Some editors write one; it used to go into the message."""
    (tmp_path / "a.py").write_bytes("\ufeffx = 1\n".encode())
    assert attachments.read(str(tmp_path / "a.py")).text == "x = 1\n"


def test_a_file_that_is_too_large_is_refused(endless, tmp_path):
    (tmp_path / "big").write_bytes(b"x" * 1_000_001)
    assert "1,000,001 bytes; the limit is 1,000,000" in said(chat(endless, f"/read {tmp_path}/big"))[-1]


def test_export_writes_the_conversation_and_replaces_nothing(endless, tmp_path):
    file = tmp_path / "chat.md"
    result = chat(endless, f"/system be kind\none\n/export {file}\n/export {file}\n")
    assert "exists; take another name" in said(result)[-1]
    text = file.read_text()
    assert text.split("\n\n")[1:] == ["## System", "be kind", "## You", "one", "## Model", SAID.decode().strip() + "\n"]
    assert [path.name for path in tmp_path.iterdir()] == ["chat.md"]


def test_copy_uses_the_desktops_program(endless, tmp_path):
    program = tmp_path / "wl-copy"
    program.write_text(f"#!/bin/sh\ncat > {tmp_path}/clip\n")
    program.chmod(0o755)
    env = {**os.environ, "WAYLAND_DISPLAY": "x", "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    run("chat", "-m", endless, *SIX, input=b"one\n/copy\n", env=env)
    assert (tmp_path / "clip").read_bytes() == SAID.strip()


def test_a_session_is_saved_after_every_turn_and_resumed(endless, home):
    chat(endless, "What is the window?\n/set temperature 0.5\n/save mine\n")
    names = sorted(path.stem for path in (home / "sessions").glob("*.json"))
    assert "mine" in names and re.fullmatch(r"\d{4}-\d\d-\d\d-what-is-the-window", names[0])
    assert stat.S_IMODE((home / "sessions").stat().st_mode) == 0o700
    again = run("chat", "--resume", "mine", "--max-tokens", "6", input=b"more\n/set\n/sessions\n")
    assert again.stdout == SAID, again.stderr
    lines = "\n".join(said(again))
    assert "resumed, 1 turn" in lines and "temperature 0.5" in lines and "max_tokens 6" in lines
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


def test_settings_are_what_they_are_set_to():
    settings = ChatOptions()
    for key, value, expected in (
        ("temperature", "0.2", 0.2),
        ("top-k", "5", 5),
        ("seed", "7", 7),
        ("seed", "random", None),
        ("stop", "END", ("END",)),
        ("stop", "", ()),
        ("stats", "on", True),
        ("on-overflow", "stop", "stop"),
    ):
        settings = settings.changed(key, value)
        assert getattr(settings, key.replace("-", "_")) == expected
    for key, value in (("stats", "maybe"), ("on_overflow", "explode"), ("temperature", "-1"), ("max_tokens", "0")):
        with pytest.raises(OptionError):
            settings.changed(key, value)


def test_settings_are_saved_as_before_and_restored():
    """Sessions saved by earlier versions have null for the defaults of lists, and texts in them."""
    saved = ChatOptions().as_saved()
    assert (saved["logit_bias"], saved["dry_sequence_breaker"], saved["seed"], saved["stop"]) == (None, None, None, [])
    changed = ChatOptions().changed("logit_bias", "5+1.5 7-inf").changed("dry_sequence_breaker", "none")
    saved = json.loads(json.dumps(changed.as_saved()))
    assert (saved["logit_bias"], saved["dry_sequence_breaker"]) == (["5+1.5", "7-inf"], ["none"])
    assert ChatOptions().restored(saved, given=frozenset()) == changed
    for wrong in ({"temperature": "hot"}, {"top_k": True}, {"stop": "x"}, {"stats": 1}, {"max_tokens": None}):
        with pytest.raises(OptionError, match="the saved settings cannot be used"):
            ChatOptions().restored(wrong, given=frozenset())


def test_settings_given_anew_win_over_saved_ones():
    restored = ChatOptions(top_k=1, top_p=0.5).restored(
        {"top_k": 9, "top_p": 0.9, "else": 1}, given=frozenset(["top_k"])
    )
    assert (restored.top_k, restored.top_p) == (1, 0.9)
    with pytest.raises(OptionError):
        ChatOptions().restored({"temperature": "hot"}, given=frozenset())


def test_commands_paths_and_names_are_completed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes one.txt").touch()
    (tmp_path / "nothing").mkdir()
    (tmp_path / ".hidden").touch()
    kinds = {name: command.completes for name, command in COMMANDS.items()}
    words = {"sessions": lambda: ["mine"], "settings": lambda: list(NAMES), "models": lambda: ["demo"]}

    def complete(text):
        found = list(CommandCompleter(kinds, words).get_completions(Document(text), CompleteEvent()))
        assert {c.start_position for c in found} <= {-len(text.rpartition(" ")[2])}
        return [c.text for c in found]

    assert complete("/re") == ["/retry", "/read"]
    assert complete("/read no") == ["notes\\ one.txt", "nothing/"]
    assert complete("/read ") == ["notes\\ one.txt", "nothing/"]
    assert complete("/read nothing/x .h") == [".hidden"]
    assert complete("/load m") == ["mine"]
    assert complete("/set rep") == ["repetition_penalty", "repetition_context_size"]
    assert complete("/set top_p 0") == complete("hello /re") == complete("/nope x") == complete("/re\n/re") == []


def test_the_toolbar_fits_and_drops_what_matters_least():
    status = Status("demo", "", 4096, 8192, True, 12.34, "T 0.7 top-p 0.95", 2)
    full = line(status, 200)
    assert (
        full == " demo · █████░░░░░ 4,096 of 8,192 tokens (window) · 2 files attached · 12.3 tok/s · T 0.7 top-p 0.95"
    )
    assert line(status, 80) == full.rsplit(" · ", 2)[0]
    assert all(len(line(status, n)) <= n for n in range(1, 120))
    assert line(Status("demo", state="loading"), 80) == " demo · loading"


def test_every_command_has_a_page_and_a_line_of_help():
    from pathlib import Path

    page = (Path(__file__).parents[2] / "docs" / "chat.md").read_text()
    for name, command in COMMANDS.items():
        assert command.help
        assert f"`/{name}" in page

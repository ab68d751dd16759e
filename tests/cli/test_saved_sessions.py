"""The command `sessions`: lists, shows, searches, renames, removes and exports saved chats, without a model."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from helpers.chat import SIX
from helpers.cli import PROGRAM, one_line, run

SPOKEN = "## You\n\none\nTwo words\n\n## Model\n\nthe the the the the the\n\n## You\n\nthree\n\n## Model\n\n"
LAST = "the the the the the the\n"


@pytest.fixture
def saved(endless, home):
    """The folder of two sessions, of which the older one has a cache."""
    talk = b'"""\none\nTwo words"""\nthree\n/save mine\n'
    setup = "import mistral_mlx.cli.chat.cache_times as c; c.WORTH_S = 0.0\n"
    command = [PROGRAM[0], "-c", setup + PROGRAM[2], "chat", "-m", str(endless), *SIX]
    assert subprocess.run(command, input=talk, capture_output=True).returncode == 0
    run("chat", "-m", endless, *SIX, "--system", "be kind", input=b"four\n/save other\n")
    return home / "sessions"


def files(folder):
    """Return the names of all files, without the ids of caches."""
    return sorted(re.sub(r"\.[0-9a-f]{16}\.", ".", path.name) for path in folder.iterdir())


def test_the_list_has_sizes_and_names_what_is_damaged(saved, endless):
    (saved / "broken.json").write_text("{")
    first, *rows = run("sessions").stdout.decode().splitlines()
    assert first.split() == ["NAME", "SAVED", "TURNS", "TEXT", "CACHE", "MODEL"]
    assert [row.split()[0] for row in rows] == ["other", "mine", "broken"]
    assert re.search(rf" 1 +1\.\d kB +- +{endless}$", rows[0])
    assert re.fullmatch(r"[\d.]+ kB", " ".join(rows[1].split()[6:8])) and " damaged " in rows[2] and "line 1" in rows[2]
    other, mine, broken = json.loads(run("sessions", "list", "--json").stdout)
    assert (other["turns"], other["cache_bytes"], mine["turns"], mine["model_path"]) == (1, 0, 2, str(endless))
    cache = next(saved.glob("mine.json.*.safetensors"))
    assert (mine["cache_bytes"], mine["text_bytes"]) == (cache.stat().st_size, (saved / "mine.json").stat().st_size)
    assert broken["name"] == "broken" and "is damaged" in broken["error"]


def test_a_cache_that_was_too_large_is_listed(saved, endless):
    document = json.loads((saved / "mine.json").read_text()) | {"cache": None, "unkept_nbytes": 412_000_000}
    (saved / "mine.json").write_text(json.dumps(document))
    assert "not kept: 412.0 MB" in run("sessions").stdout.decode()
    listed = run("chat", "-m", endless, "--quiet", input=b"/sessions\n").stderr.decode()
    assert "cache not kept: 412.0 MB" in listed


def test_a_conversation_is_shown_and_exported_as_the_chat_exports_it(saved, endless, tmp_path):
    whole = run("sessions", "show", "mine")
    assert whole.stdout.decode() == f"# A chat with {endless}\n\n{SPOKEN}{LAST}"
    assert run("sessions", "export", "mine").stdout == run("sessions", "export", "mine", "-").stdout == whole.stdout
    assert run("sessions", "show", "mine", "-n", "1").stdout.decode() == f"## You\n\nthree\n\n## Model\n\n{LAST}"
    assert b"## System\n\nbe kind\n\n## You" in run("sessions", "show", "other").stdout
    run("chat", "--resume", "mine", input=f"/export {tmp_path}/a.md\n".encode())
    assert run("sessions", "export", "mine", tmp_path / "b.md").returncode == 0
    assert (tmp_path / "a.md").read_bytes() == (tmp_path / "b.md").read_bytes() == whole.stdout
    again = run("sessions", "export", "mine", tmp_path / "b.md")
    assert again.returncode == 2 and "exists; take another name" in one_line(again.stderr)
    assert "only 2 turns" in one_line(run("sessions", "show", "mine", "-n", "3").stderr)
    assert "-n is 0; it must be at least 1" in one_line(run("sessions", "show", "mine", "-n", "0").stderr)


def test_a_search_prints_lines_and_has_the_status_of_grep(saved):
    found = run("sessions", "search", "two WORDS")
    assert (found.returncode, found.stdout) == (0, b"mine:1:You: Two words\n")
    assert run("sessions", "search", "THE").stdout.decode().splitlines() == [
        f"{where}:Model: {LAST.strip()}" for where in ("other:1", "mine:1", "mine:2")
    ]
    nothing = run("sessions", "search", "nowhere")
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (1, b"", b"")
    (saved / "broken.json").write_text("{")
    assert "broken.json is damaged" in one_line(run("sessions", "search", "four").stderr)


def test_a_session_is_renamed_with_its_cache(saved):
    refused = run("sessions", "rename", "mine", "other")
    assert refused.returncode == 2 and "there is a session other already" in one_line(refused.stderr)
    assert run("sessions", "rename", "mine", "new").returncode == 0
    assert files(saved) == ["new.json", "new.json.safetensors", "other.json"]
    again = run("chat", "--resume", "new", *SIX, "--stats", input=b"/retry\n")
    assert again.stdout.decode() == LAST and b"(0 cached)" not in again.stderr


def test_sessions_are_removed_by_name_only_and_all_or_none(saved):
    for wrong in ([], ["mine", "nope"], ["../sessions/mine"], ["mine.json/../other"]):
        assert run("sessions", "rm", *wrong).returncode == 2
    assert files(saved) == ["mine.json", "mine.json.safetensors", "other.json"]
    assert run("sessions", "rm", "--caches", "other").returncode == 0
    assert files(saved) == ["mine.json", "mine.json.safetensors", "other.json"]
    assert "kB of caches removed" in one_line(run("sessions", "rm", "--caches").stderr)
    assert files(saved) == ["mine.json", "other.json"]
    (saved / "broken.json").write_text("{")
    assert run("sessions", "rm", "mine", "other", "broken").returncode == 0
    assert files(saved) == []


@pytest.mark.parametrize("command", ["show", "export", "rename", "rm"])
@pytest.mark.parametrize("name", ["../../etc/passwd", ".hidden", "a/b", "a\x1b[31m", ""])
def test_a_name_leads_nowhere_else(saved, command, name):
    for words in ([name, "new"], ["mine", name]) if command == "rename" else ([name],):
        result = run("sessions", command, *words)
        assert result.returncode == 2 and "cannot be a session's name" in one_line(result.stderr)


def test_a_session_of_nonsense_is_refused_in_one_line(saved):
    document = json.loads((saved / "mine.json").read_text())
    for key, value in (
        ("messages", 3),
        ("messages", [3]),
        ("messages", [{"role": "x", "content": ""}]),
        ("system", []),
    ):
        (saved / "odd.json").write_text(json.dumps(document | {key: value}))
        result = run("sessions", "show", "odd")
        assert result.returncode == 3 and "odd.json is damaged: " in one_line(result.stderr)


def test_no_command_imports_mlx(saved):
    for line in ("list", "show mine", "search one", "export mine", "rename mine a", "rm a"):
        code = f"import sys; sys.argv = ['mistral-mlx', 'sessions', *{line.split()}]\ntry:\n    {PROGRAM[2]}\n"
        code += "finally:\n    assert not {'mlx', 'numpy', 'tokenizers'} & set(sys.modules)"
        code = code.replace("; main()", "\n    main()")
        assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0, line


def test_where_nothing_is_saved_that_is_said(home):
    assert "no session is saved" in one_line(run("sessions").stderr)
    assert (run("sessions", "list", "--json").stdout, run("sessions", "search", "a").returncode) == (b"[]\n", 1)
    assert run("sessions", "rm", "--caches").returncode == 0


def test_a_chat_whose_session_is_renamed_or_removed_saves_it_again(saved, endless, home):
    steps = ["two\n", "sessions rename mine new", "three\n", "sessions rm mine", "four\n"]
    with subprocess.Popen([*PROGRAM, "chat", "--resume", "mine", *SIX], stdin=-1, stdout=-1, stderr=-1) as process:
        for step in steps:
            if step.startswith("sessions"):
                assert run(*step.split()).returncode == 0
            else:
                process.stdin.write(step.encode())
                process.stdin.flush()
                assert process.stdout.readline().decode() == LAST
                wait_for(saved / "mine.json", step.strip())
        process.stdin.close()
        assert process.wait() == 0
    said = [m["content"] for m in json.loads((saved / "mine.json").read_text())["messages"] if m["role"] == "user"]
    assert said == ["one\nTwo words", "three", "two", "three", "four"]
    assert run("chat", "--resume", "mine", "--quiet", *SIX, input=b"/retry\n").stdout.decode() == LAST


def wait_for(path: Path, text: str) -> None:
    """Wait until the answer to `text` is saved."""
    while True:
        messages = json.loads(path.read_text())["messages"] if os.path.exists(path) else []
        if [m["content"] for m in messages[-2:-1]] == [text]:
            return

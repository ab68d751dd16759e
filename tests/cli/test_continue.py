"""`complete --continue` goes on from the last completion, which is kept as text for its owner only."""

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
from helpers.cli import PROGRAM, one_line, run
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx.cli.answers import last_completion
from mistral_mlx.cli.answers.last_completion import LastCompletion
from mistral_mlx.errors import SessionError

GREEDY = ("--temperature", "0", "--max-tokens", "4", "--quiet")


@pytest.fixture
def file(home):
    return home / "last-completion.json"


def complete(*args, **options):
    return run("complete", *GREEDY, *args, **options)


def kept(file):
    return json.loads(file.read_text())


def contents(file):
    return [message["content"] for message in kept(file)["messages"]]


def answer_of(folder, tmp_path, *texts, system="be kind", **options):
    """Return what the model answers to these messages without anything kept."""
    roles = ("user", "assistant") * len(texts)
    said = [{"role": role, "content": text} for role, text in zip(roles, texts, strict=False)]
    (tmp_path / "messages.json").write_text(json.dumps([{"role": "system", "content": system}, *said]))
    return complete("-m", folder, "--messages", tmp_path / "messages.json", "--no-save", **options).stdout


def test_the_next_call_goes_on_with_the_same_model_and_system_prompt(folder, file, tmp_path):
    first = complete("-m", folder.name, "--system", "be kind", "the king", input=b"a text", cwd=folder.parent)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert kept(file)["folder"] == str(folder) and not list(file.parent.glob(".*"))
    second = complete("-c", "and the window?", input=b"more", cwd=tmp_path)
    said = ("a text\n\nthe king", first.stdout.decode().rstrip("\n"), "more\n\nand the window?")
    assert (second.returncode, second.stderr) == (0, b"")
    assert second.stdout == answer_of(folder, tmp_path, *said) != first.stdout
    assert contents(file) == [*said, second.stdout.decode().rstrip("\n")]
    third = json.loads(complete("--continue", "--json", "why", "--no-save").stdout)
    assert third["text"] + "\n" == answer_of(folder, tmp_path, *contents(file), "why").decode()
    assert len(contents(file)) == 4


def test_options_of_the_call_come_before_those_of_the_last(folder, file, tmp_path):
    complete("-m", folder, "--system", "be kind", "--template", "v3", "one")
    other = write_tiny_folder(tmp_path / "other", seed=3)
    said = contents(file)
    result = complete("-c", "-m", other, "--system", "be brief", "two", "--no-save")
    assert result.stdout == answer_of(other, tmp_path, *said, "two", system="be brief", input=None)
    assert kept(file)["template"] == "v3"


def test_a_prompt_template_works_with_it(folder, home, file, tmp_path):
    (home / "templates").mkdir(parents=True)
    (home / "templates" / "ask.toml").write_text('prompt = "What of {input}?"\nprefill = "the"\n')
    complete("-m", folder, "--system", "be kind", "one")
    complete("-c", "-t", "ask", "two")
    assert contents(file)[2] == "What of two?" and contents(file)[3].startswith("the")
    assert kept(file)["system"] == "be kind"


@pytest.mark.parametrize(
    ("args", "name"),
    [
        (("--raw", "x"), "--raw"),
        (("--fim-prefix", "x"), "filling in the middle"),
        (("--samples", "2", "x"), "--samples"),
        (("--tools", "tools.json", "x"), "--tools"),
        (("--messages", "messages.json"), "--messages"),
    ],
)
def test_what_is_no_conversation_is_refused_by_name_and_not_kept(folder, file, tmp_path, args, name):
    complete("-m", folder, "one")
    before = file.read_bytes()
    result = complete("-c", "-m", folder, *args, cwd=tmp_path)
    assert result.returncode == 2
    assert f"--continue goes on with one conversation, and {name} has none" in one_line(result.stderr)
    if name in ("--raw", "--samples"):
        assert complete("-m", folder, *args).returncode == 0
    assert file.read_bytes() == before


def test_a_model_without_a_chat_format_and_images_of_messages_are_not_kept(file, tmp_path, folder):
    base = write_tiny_folder(tmp_path / "base", chat=False)
    assert complete("-m", base, "Once").returncode == 0
    tool = [{"role": "user", "content": [{"type": "text", "text": "x"}]}]
    (tmp_path / "m.json").write_text(json.dumps(tool))
    complete("-m", folder, "--messages", tmp_path / "m.json")
    assert not file.exists()


def test_without_a_completion_or_its_model_one_line_says_so(folder, file, tmp_path):
    result = complete("-c", "two")
    assert (result.returncode, result.stdout) == (2, b"")
    assert "there is no completion yet to go on with" in one_line(result.stderr)
    gone = tmp_path / "gone"
    shutil.copytree(folder, gone)
    complete("-m", gone, "one")
    shutil.rmtree(gone)
    result = complete("-c", "two")
    assert result.returncode == 3
    expected = rf"the model of the last completion, {gone}, is gone from {gone}; name another one with --model"
    assert expected in one_line(result.stderr)
    assert complete("-c", "-m", folder, "two").returncode == 0


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": "x"}, "its format"),
        ({"version": 2}, "version 2"),
        ({"model": 3}, "its model is no text"),
        ({"folder": "a\0b"}, "its model is no text"),
        ({"system": []}, "system prompt is []"),
        ({"messages": []}, "its messages are no texts"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "its messages are no texts"),
        ({"messages": [{"role": "user", "content": 3}]}, "its messages are no texts"),
        ({"messages": [{"role": "user"}]}, "its messages are no texts"),
        (b"{", "line 1"),
        (b"\xff", "not UTF-8"),
        (b" " * (16 * 1024 * 1024 + 1), "more than 16,777,216 bytes"),
    ],
)
def test_a_damaged_file_is_told_and_the_next_completion_replaces_it(home, file, change, reason):
    last_completion.save(LastCompletion("m", "/m", None, None, [{"role": "user", "content": "x"}]))
    file.write_bytes(change if isinstance(change, bytes) else json.dumps(kept(file) | change).encode())
    with pytest.raises(SessionError, match=re.escape(reason)):
        last_completion.load()
    last = LastCompletion("m", "/m", "v3", "s", [{"role": "user", "content": "half \udc80"}])
    last_completion.save(last)
    assert last_completion.load() == last


def test_a_pipe_or_folder_in_its_place_is_no_hang(home, file):
    home.mkdir(exist_ok=True)
    os.mkfifo(file)
    with pytest.raises(SessionError):
        last_completion.load()


def test_what_is_too_large_is_not_kept_and_nothing_older_is_taken_for_it(home, file, monkeypatch):
    last = LastCompletion("m", "/m", None, None, [{"role": "user", "content": "x"}])
    last_completion.save(last)
    monkeypatch.setattr(last_completion, "MAX_BYTES", 100)
    last_completion.save(last)
    assert not file.exists()


def test_a_place_that_cannot_be_written_is_a_remark_and_no_error(folder, home, file):
    file.mkdir(parents=True)
    result = run("complete", "-m", folder, "--max-tokens", "2", "one", input=b"")
    assert result.returncode == 0
    assert "this completion cannot be kept for --continue" in one_line(result.stderr.splitlines()[-1])
    assert not list(home.glob(".*"))


def test_what_is_cut_off_by_the_reader_is_kept_as_far_as_it_came(endless, file):
    shell = f"{sys.executable} -c '{PROGRAM[2]}' complete -q -m {endless} --max-tokens 100000 one | head -c 8"
    subprocess.run(["/bin/bash", "-c", shell], check=True, capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    question, answer = contents(file)
    assert question == "one" and answer.startswith("the the")


def test_of_calls_at_once_one_is_kept_whole(home, file):
    def write(n):
        text = str(n) * 100_000
        last_completion.save(LastCompletion("m", "/m", None, None, [{"role": "user", "content": text}]))
        (message,) = last_completion.load().messages
        return set(message["content"]), len(message["content"])

    with ThreadPoolExecutor(8) as pool:
        assert all(len(letters) == 1 and n == 100_000 for letters, n in pool.map(write, range(10)))
    assert not list(home.glob(".*"))

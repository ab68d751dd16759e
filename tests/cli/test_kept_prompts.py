"""Kept prompts of `complete`, and the command `cache`."""

import json
import os

import pytest
from helpers.invoke import invoke

from mistral_mlx.errors import OptionError

pytestmark = pytest.mark.usefixtures("_ready_stdin")
LONG = "the model said hello and the world said nothing at all. " * 12


@pytest.fixture
def kept(home):
    return home / "kept-prompts"


def ask(folder, *args, input=""):
    """Return the record of an answer."""
    options = ("--json", "--temperature", "0", "--max-tokens", "4")
    return json.loads(invoke("complete", "-m", folder, *options, *args, input=input).stdout)


def assert_kept(folder, first, second, *, input=("", "")):
    """Both answers are those of runs without kept prompts, and the second takes up what both begin with."""
    answers = []
    for args, piped in zip((first, second), input, strict=True):
        answers.append(ask(folder, *args, input=piped))
        assert answers[-1]["text"] == ask(folder, *args, "--no-cache", input=piped)["text"]
    assert answers[0]["cached_tokens"] == 0
    assert answers[1]["cached_tokens"] >= 64


def test_what_a_template_has_before_the_input_is_kept(folder, home):
    (home / "templates").mkdir()
    (home / "templates" / "long.toml").write_text(f'prompt = "{LONG} Now: {{input}} The end."')
    assert_kept(folder, ["-t", "long", "a question"], ["-t", "long", "another one"])


def test_a_template_without_input_is_kept_as_a_whole(folder, home):
    (home / "templates").mkdir()
    (home / "templates" / "long.toml").write_text(f'prompt = "{LONG}"')
    asked = [ask(folder, "-t", "long") for _ in range(2)]
    assert asked[1]["cached_tokens"] == asked[0]["prompt_tokens"] - 1
    assert asked[0]["text"] == asked[1]["text"]


def test_what_comes_before_the_argument_is_kept(folder, tmp_path):
    (tmp_path / "file").write_text(LONG)
    assert_kept(folder, ["-f", tmp_path / "file", "why"], ["-f", tmp_path / "file", "how"])
    (tmp_path / "prompt").write_text(LONG[4:])
    assert_kept(folder, ["--prompt-file", tmp_path / "prompt", "so"], ["--prompt-file", tmp_path / "prompt", "then"])


def test_standard_input_is_not_kept(folder, home):
    """A diff or a log is another one in the next call: a file for each call would push out the useful ones."""
    ask(folder, "so", input=LONG)
    assert not list(home.rglob("kept-prompts/*"))


def test_a_system_prompt_is_kept(folder):
    assert_kept(folder, ["--system", LONG, "why"], ["--system", LONG, "how"])


def test_messages_are_kept_up_to_the_last_one_of_the_user(folder, tmp_path):
    before = [{"role": "user", "content": LONG}, {"role": "assistant", "content": "yes"}]
    for name, text in (("one", "why"), ("two", "how")):
        (tmp_path / name).write_text(json.dumps([*before, {"role": "user", "content": text}]))
    assert_kept(folder, ["--messages", tmp_path / "one"], ["--messages", tmp_path / "two"])


def test_an_argument_alone_is_not_kept(folder, kept):
    ask(folder, LONG)
    assert not kept.exists()


def test_no_cache_neither_keeps_nor_takes_up(folder, kept):
    ask(folder, "--no-cache", "--system", LONG, "why")
    assert not kept.exists()
    ask(folder, "--system", LONG, "why")
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert ask(folder, "--no-cache", "--system", LONG, "why")["cached_tokens"] == 0
    assert len(before) == 1 and {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before


def test_the_limit_may_be_in_the_config_file_and_is_checked(folder, kept, config):
    config.write_text("cache_limit = 0.0\n")
    ask(folder, "--system", LONG, "why")
    assert not kept.exists() or list(kept.iterdir()) == []
    config.write_text("cache = false\n")
    assert ask(folder, "--system", LONG, "why")["cached_tokens"] == 0
    config.write_text("")
    for wrong in ("-1", "nan", "1e300"):
        with pytest.raises(OptionError, match=r"--cache-limit is .*; it must be 0 to"):
            invoke("complete", "-m", folder, "--cache-limit", wrong, "why")


def test_statistics_say_what_came_from_the_disk(folder):
    said = [
        invoke("complete", "-m", folder, "--stats", "--max-tokens", 2, "--system", LONG, text).stderr
        for text in ("why", "how")
    ]
    assert "(0 cached) " in said[0]
    assert "of them from the disk) " in said[1]


def test_many_answers_take_up_one_beginning(folder):
    ask(folder, "--system", LONG, "why")
    args = ("complete", "-m", folder, "--json", "--max-tokens", 3, "--samples", 2, "--system", LONG, "how")
    records = json.loads(invoke(*args).stdout)
    assert 64 <= records[0]["cached_tokens"] < records[1]["cached_tokens"]


@pytest.mark.parametrize("quiet", [False, True])
def test_a_folder_that_cannot_be_written_is_said_and_costs_no_answer(folder, kept, quiet):
    kept.write_text("no folder")
    args = ("complete", "-m", folder, "--max-tokens", 2, "--temperature", 0, "--system", LONG, "--stop", "\n", "why")
    result = invoke(*args, *["-q"] * quiet)
    said = [line for line in result.stderr.splitlines() if "kept" in line]
    assert (result.exit_code, len(said)) == (0, 0 if quiet else 1)
    assert result.stdout == invoke(*args, "--no-cache", "-q").stdout


def test_the_list_shows_what_is_kept_and_clear_removes_it(folder, kept):
    assert "no prompt is kept" in invoke("cache", "list").stderr
    n = [ask(folder, "--system", LONG, text)["cached_tokens"] for text in ("why", "how")][1]
    (path,) = kept.iterdir()
    os.utime(path, (10**9, 10**9))
    nbytes = path.stat().st_size
    titles, row = invoke("cache", "list").stdout.splitlines()
    assert titles.split() == ["TOKENS", "SIZE", "LAST", "USED", "MODEL"]
    assert row.split()[0] == str(n) and row.endswith(str(folder)) and "2001-09-0" in row
    record = {"model": str(folder), "tokens": n, "bytes": nbytes, "used_at": "2001-09-09T01:46:40+00:00"}
    assert json.loads(invoke("cache", "list", "--json").stdout) == [{**record, "path": str(path)}]
    os.utime(path, (10**13, 10**13))
    assert len(invoke("cache", "list").stdout.splitlines()) == 2
    assert "1 kept prompt removed" in invoke("cache", "clear").stderr
    assert json.loads(invoke("cache", "list", "--json").stdout) == []

"""/compact puts a summary in the place of the oldest turns, and /undo takes it back."""

import json
import re
import signal
import stat

import pytest
from helpers.chat import chat, said
from helpers.cli import one_line
from helpers.terminal import PROMPT, leave, terminal

from mistral_mlx.cli.chat import store
from mistral_mlx.session.compact import BEGINS, TAKEN_UP

LONG = "x" + " x" * 1499  # 3,000 tokens; a summary of the endless model has 1,024


def sessions(home):
    """Return what is said in each saved session, by name."""
    files = (home / "sessions").glob("*.json")
    return {path.stem: [m["content"] for m in json.loads(path.read_text())["messages"]] for path in files}


def test_the_oldest_turns_are_summarized_and_come_back_by_undo(endless, home):
    steps = (LONG, "two", "three", "/save mine", "/compact", "/history", "/undo", "/compact 1", "four", "/undo", "five")
    result = chat(endless, "\n".join(steps))
    lines, saved = said(result), sessions(home)
    words = re.compile(r"(3,\d\d\d) tokens -> (1,\d\d\d) tokens; /undo brings .* back, which is saved as (\S+)")
    before, after, name = next(match for line in lines if (match := words.fullmatch(line))).groups()
    assert before > after and name == "mine-full"
    assert "the summary was cut at 1,024 tokens" in lines
    assert f"the conversation is whole again: {before} tokens" in lines
    assert saved["mine-full"][::2] == [LONG, "two", "three"]
    assert saved["mine-full-2"] == saved["mine-full"]  # which /undo brought back for the second summary
    assert "taken back: four" in lines
    assert saved["mine"][:2] == [BEGINS + "the " * 1023 + "the", TAKEN_UP] and saved["mine"][2::2] == ["three", "five"]
    at = lines.index(f"> {BEGINS.strip()}")
    assert lines[at + 3] == TAKEN_UP and lines[at + 4] == "> two"
    assert result.stdout.count(b"\n") == 5  # a summary is no answer
    modes = {stat.S_IMODE(path.stat().st_mode) for path in (home / "sessions").glob("*.json")}
    assert modes == {0o600}
    assert not list((home / "sessions").glob("mine-full*.safetensors"))


def test_nothing_changes_where_a_summary_is_no_gain_or_there_is_nothing_to_summarize(endless, home):
    result = chat(endless, "one\n/compact\ntwo\nthree\n/compact\n/undo\n", "--quiet")
    expected = r"the summary would not make it shorter \(\d\d -> 1?\d\d\); nothing is changed"
    assert re.fullmatch(expected, one_line(result.stderr).removeprefix("mistral-mlx: "))
    assert [texts[::2] for texts in sessions(home).values()] == [["one", "two"]]
    assert "there is nothing to summarize before the turns that stay" in said(chat(endless, "one\n/compact\n"))[-1]


@pytest.mark.parametrize("rest", ["x", "-1", "9" * 5000])
def test_compact_takes_a_number_of_turns(endless, rest):
    assert "is no number of turns" in said(chat(endless, f"/compact {rest}\n"))[-1]


def test_what_is_not_saved_is_only_undone(endless, home):
    lines = said(chat(endless, f"{LONG}\n/compact 0\n/undo\n", "--no-save"))
    assert any(line.endswith("tokens; /undo brings the whole conversation back") for line in lines)
    assert not (home / "sessions").exists()


def test_another_model_does_not_get_the_ids_of_the_first_by_undo(endless, home):
    steps = (LONG, "two", "/compact 1", f"/model {endless}", "/undo")
    lines = said(chat(endless, "\n".join(steps)))
    assert lines[-1] == "taken back: two"


def test_ctrl_c_changes_nothing_and_the_summary_is_dim(endless, home):
    long = "import mistral_mlx.session.compact as c; c.LEAST_TOKENS = 1_000_000\n"
    child = terminal(endless, "--max-tokens", "6", setup=long)
    child.send("one\r")
    child.expect("stopped at 6 tokens")
    child.expect(PROMPT)
    child.send("/compact 0\r")
    child.expect("Ctrl-C changes nothing:")
    child.expect("\x1b\\[2mthe")
    child.kill(signal.SIGINT)
    child.expect("there is no whole summary; nothing is changed")
    child.expect(PROMPT)
    child.send("two\r")
    child.expect("stopped at 6 tokens")
    leave(child)
    assert [texts[::2] for texts in sessions(home).values()] == [["one", "two"]]


def test_a_long_name_stays_a_name(endless, home):
    name = "n" * store.MAX_NAME
    chat(endless, f"{LONG}\n/save {name}\n/compact 0\n/undo\n/compact 0\n")
    assert {name, "n" * 59 + "-full", "n" * 57 + "-full-2"} <= sessions(home).keys()

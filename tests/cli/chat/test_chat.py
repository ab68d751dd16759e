"""The chat from a pipe: whole transcripts."""

import re

import pytest
from helpers.chat import SAID, SIX, chat, said, saved
from helpers.cli import one_line, run
from helpers.tiny_folder import repeat_forever, write_tiny_folder

from mistral_mlx.cli.chat.loop import COMMANDS


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    return repeat_forever(write_tiny_folder(tmp_path_factory.mktemp("models") / "endless", max_position_embeddings=64))


def test_one_message_a_line_and_nothing_but_answers_on_stdout(endless):
    result = chat(endless, "Hello\n\nAgain\n", "--quiet")
    assert (result.returncode, result.stdout, result.stderr) == (0, b"the the the the the the\n" * 2, b"")


def test_the_cache_is_kept_between_turns(endless):
    first, second = [line for line in said(chat(endless, "Hello\nAgain\n", "--stats")) if line.startswith("prompt")]
    n_prompt, n_cached = map(int, re.match(r"prompt (\d+) tokens \((\d+) cached\)", first).groups())
    assert (n_cached, f"({n_prompt + 5} cached)" in second) == (0, True)


def test_commands_are_obeyed_and_unknown_ones_are_not_sent(endless):
    result = chat(endless, "/nope\n/help\n/exit\nnever\n")
    assert result.returncode == 2  # a script has to know
    assert result.stdout == b""
    lines = said(result)
    assert "error: there is no command /nope" in lines[1]
    assert set(re.findall(r"  /([a-z]+)", "\n".join(lines))) == set(COMMANDS)


def test_clear_forgets(endless):
    result = chat(endless, "Hello\n/clear\nHello\n", "--stats")
    counts = [line.split(" tok/s")[0] for line in said(result) if line.startswith("prompt")]
    assert [count.rsplit(" ", 1)[0] for count in counts] == [counts[0].rsplit(" ", 1)[0]] * 2
    assert "the conversation is cleared" in said(result)


def test_an_unfinished_quotation_is_a_message(endless):
    assert chat(endless, '"""\nHello', "--quiet").stdout == b"the the the the the the\n"


def test_three_quotes_make_one_message_of_many_lines(endless):
    many = chat(endless, '"""\nHello\nAgain"""\n', "--quiet")
    assert many.stdout.count(b"\n") == 1


def test_what_is_not_utf_8_is_refused_with_its_line_and_place(endless):
    """It used to be answered with U+FFFD in place of the bytes."""
    text = b'Hello\ncaf\xe9\n"""\none\n\xff two\n"""\nHello\n'
    result = run("chat", "-m", endless, *SIX, "--quiet", input=text)
    assert (result.returncode, result.stdout) == (2, SAID * 2)
    assert said(result) == [
        "error: line 2 of standard input is not UTF-8 text: byte 0xe9 at 3",
        "error: line 5 of standard input is not UTF-8 text: byte 0xff at 0",
    ]


def test_the_window_and_the_trained_positions_are_said_once(endless):
    lines = said(chat(endless, "Hello\n" * 9))
    assert len([line for line in lines if "longer than the window of 8 tokens" in line]) == 1
    assert len([line for line in lines if "past the 64 that the model was trained for" in line]) == 1


def test_a_full_context_is_an_error_of_the_turn_and_not_of_the_chat(tmp_path):
    short = write_tiny_folder(tmp_path / "short", sliding_window=None, max_position_embeddings=40)
    result = chat(repeat_forever(short), f"Hello\n{'x ' * 40}\nHello\n", "--quiet")
    assert (result.returncode, result.stdout) == (4, b"the the the the the the\n" * 2)
    assert "the model's context 40" in one_line(result.stderr)


def test_what_only_begins_like_a_mark_is_the_answer_and_the_setting_is_checked(tmp_path):
    folder = repeat_forever(write_tiny_folder(tmp_path / "thinker"), piece="<0x3C>")  # "<", which may begin a mark
    result = chat(folder, "Hello\n/set reasoning hide\n/set reasoning maybe\n", "--quiet")
    assert result.stdout == b"<<<<<<\n"
    assert "reasoning is maybe; it must be show or hide" in result.stderr.decode()


def test_an_effort_that_the_model_lacks_is_refused_at_once_and_by_set(endless):
    assert (
        "reasoning_effort is high; this model has no such setting"
        in said(chat(endless, "Hello\n", "--reasoning-effort", "high"))[-1]
    )
    lines = said(chat(endless, "/set reasoning_effort high\n/set reasoning_effort -\n"))
    assert any("this model has no such setting" in line for line in lines)


def test_the_system_prompt_of_a_model_is_offered_and_never_used_unasked(tmp_path, home):
    folder = repeat_forever(write_tiny_folder(tmp_path / "official"))
    (folder / "SYSTEM_PROMPT.txt").write_text("Be kind.\n")
    result = chat(folder, "/system\nHello\n/system @model\nHello\n")
    lines = said(result)
    assert (
        "the model comes with a system prompt (SYSTEM_PROMPT.txt), which is not used; /system @model uses it" in lines
    )
    assert lines.index("there is no system prompt") < lines.index("system prompt: Be kind.")
    assert saved(home)["system"] == "Be kind."
    result = chat(folder, "/system\n", "--system", "@model")
    assert "system prompt: Be kind." in said(result) and "comes with" not in result.stderr.decode()

"""What is a slash command and what a message; the help on commands; leaving."""

import pytest
from helpers.chat import chat, said, spoken

from mistral_mlx.cli.chat import help as chat_help
from mistral_mlx.cli.chat.loop import COMMANDS, command_in

MESSAGES = [
    "/usr/bin/foo crashes, why?",
    "// a comment",
    "/* another */",
    "/ leading",
    "/1 is no command",
    "/nope\nwith a second line",
    "hello /help",
    " /help",
]


@pytest.mark.parametrize("text", MESSAGES)
def test_a_text_that_can_be_no_command_is_a_message(text):
    assert command_in(text) is None


@pytest.mark.parametrize(
    ("text", "command"),
    [
        ("/help", ("help", "")),
        ("/HELP", ("help", "")),
        ("/?", ("help", "")),
        ("/", ("help", "")),
        ("/system\nYou are brief.", ("system", "You are brief.")),
        ("/bye", ("exit", "")),
        ("/quit", ("exit", "")),
        ("/q", ("exit", "")),
        ("/undo  2 ", ("undo", "2")),
        ("/system You are\nbrief.", ("system", "You are\nbrief.")),
        ("/nope", ("nope", "")),
        ("/undo\n", ("undo", "")),
    ],
)
def test_a_command_is_known_by_its_name_in_any_case_and_by_the_names_of_other_programs(text, command):
    assert command_in(text) == command


def test_a_message_that_begins_with_a_path_is_sent(endless, home):
    chat(endless, "/usr/bin/foo crashes, why?\n", "--save")
    assert spoken(home)[0] == "/usr/bin/foo crashes, why?"


def test_an_unknown_command_names_the_nearest_one(endless):
    lines = said(chat(endless, "/undoo\n/zzz\n"))
    assert "there is no command /undoo; did you mean /undo?" in lines[1]
    assert "there is no command /zzz; /help lists them" in lines[2]


@pytest.mark.parametrize("leaving", ["/bye", "/quit", "/q", "/EXIT"])
def test_the_words_that_leave_other_programs_leave_this_one(endless, leaving):
    result = chat(endless, f"{leaving}\nnever\n")
    assert (result.returncode, result.stdout) == (0, b"")


def test_in_a_pipe_the_word_exit_is_a_message(endless, home):
    chat(endless, "exit\n", "--save")
    assert spoken(home)[0] == "exit"


def test_the_help_has_every_command_once_and_fits_on_a_screen(monkeypatch):
    groups = [*chat_help.LEFT.values(), *chat_help.RIGHT.values()]
    assert sorted(name for group in groups for name in group) == sorted(COMMANDS)
    monkeypatch.setenv("COLUMNS", "80")
    lines = chat_help.overview(COMMANDS).splitlines()
    assert len(lines) <= 22
    assert max(map(len, lines)) < 80
    monkeypatch.setenv("COLUMNS", "50")
    assert max(map(len, chat_help.overview(COMMANDS).partition("\n\n")[0].splitlines())) < 50


def test_the_help_on_one_command_is_its_whole_line(endless):
    lines = said(chat(endless, "/help undo\n/help /?\n/help nope\n"))
    assert lines[1] == "  /undo [N]: remove the last turn, or the last N; or take /compact back"
    assert lines[2].startswith("  /help [COMMAND]: ")
    assert "there is no command /nope" in lines[3]


@pytest.mark.parametrize("command", ["/retry please", "/clear now", "/exit now", "/plain maybe"])
def test_a_text_that_a_command_does_not_take_is_refused(endless, command):
    lines = said(chat(endless, f"Hello\n{command}\n"))
    assert lines[-1].startswith("error: /" if "plain" not in command else "error: plain is maybe")


def test_plain_is_switched_or_set(endless):
    lines = said(chat(endless, "/plain on\n/plain on\n/plain\n/plain off\n"))
    assert lines[1:] == [
        f"answers are shown as {how}" for how in ("they are written", "they are written", *["Markdown"] * 2)
    ]


LONG = "n" * 300


@pytest.mark.parametrize(
    "command",
    [
        "/read ~nosuch/x",
        "/glob ~nosuch/*",
        "/export ~nosuch/x.md",
        "/schema ~nosuch/x.json",
        f"/read {LONG}",
        f"/export {LONG}.md",
        f"/schema {LONG}.json",
        f"/load {LONG}",
        f"/save {LONG}",
        f"/glob {LONG}/*",
        "/model ~nosuch/x",
        "/export /proc/x.md",
    ],
)
def test_a_name_that_the_system_refuses_does_not_end_the_chat(endless, command):
    """It used to end with 'this is a bug', and the files and the schema of the next message were gone."""
    result = chat(endless, f"{command}\nHello\n")
    lines = said(result)
    assert result.stdout and lines[1].startswith("error: ") and "bug" not in lines[1], lines

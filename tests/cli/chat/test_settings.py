"""The settings of a chat, the completion of its commands, its toolbar and its help."""

import json
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from mistral_mlx.cli.chat.loop import COMMANDS
from mistral_mlx.cli.chat.settings import ChatOptions
from mistral_mlx.cli.chat.toolbar import Status, line
from mistral_mlx.cli.chat.words import CommandCompleter
from mistral_mlx.errors import OptionError


def test_settings_are_what_they_are_set_to():
    settings = ChatOptions()
    for key, value, expected in (
        ("temperature", "0.2", 0.2),
        ("top-k", "5", 5),
        ("seed", "7", 7),
        ("seed", "random", None),
        ("stop", "END", ("END",)),
        ("stop", '"a b" c', ("a b", "c")),
        ("stop", "-", ()),
        ("temperature", "-", 0.7),
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
    words = {"sessions": lambda: ["mine"], "models": lambda: ["demo"]}

    helps = {name: command.help for name, command in COMMANDS.items()}

    def complete(text):
        found = list(CommandCompleter(kinds, words, helps).get_completions(Document(text), CompleteEvent()))
        assert {c.start_position for c in found} <= {-len(text.rpartition(" ")[2])}
        if " " not in text:
            assert [c.display_meta_text for c in found] == [helps[c.text[1:]] for c in found]
        return [c.text for c in found]

    assert complete("/re") == ["/retry", "/read"]
    assert complete("/read no") == ["notes\\ one.txt", "nothing/"]
    assert complete("/read ") == ["notes\\ one.txt", "nothing/"]
    assert complete("/read nothing/x .h") == [".hidden"]
    assert complete("/load m") == ["mine"]
    assert complete("/set rep") == ["repetition_penalty", "repetition_context_size"]
    assert complete("/set on_overflow ") == ["drop-turns", "stop"]
    assert complete("/set stats o") == ["on", "off"]
    assert complete("/set top_p 0") == complete("hello /re") == complete("/nope x") == complete("/re\n/re") == []


def test_the_toolbar_says_that_nothing_was_saved():
    assert line(Status("demo", used=9, is_unsaved=True), 80) == " demo · not saved · 9 tokens"


def test_the_toolbar_fits_and_drops_what_matters_least():
    status = Status("demo", "", 4096, 8192, True, 12.34, "T 0.7 top-p 0.95", 2)
    full = line(status, 200)
    assert (
        full == " demo · █████░░░░░ 4,096 of 8,192 tokens (window) · 2 files attached · 12.3 tok/s · T 0.7 top-p 0.95"
    )
    assert line(status, 80) == full.rsplit(" · ", 2)[0]
    assert all(len(line(status, n)) <= n for n in range(1, 120))
    assert line(Status("demo", state="loading"), 80) == " demo · loading"
    assert line(Status("/home/me/models/demo/"), 80) == " demo · 0 tokens"
    assert line(Status("mistralai/Ministral"), 80) == " mistralai/Ministral · 0 tokens"


def test_every_command_has_a_page_and_a_line_of_help():

    page = (Path(__file__).parents[3] / "docs" / "chat.md").read_text()
    for name, command in COMMANDS.items():
        assert command.help
        assert f"`/{name}" in page

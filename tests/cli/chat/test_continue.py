"""/continue goes on in the style of the answer that it continues."""

from types import SimpleNamespace

import pyte

from mistral_mlx.cli.chat import answering
from mistral_mlx.cli.chat.commands import CONVERSATION


def test_an_answer_that_stopped_in_code_goes_on_in_code(monkeypatch):
    """The rest used to be shown as prose, and the fence at its end began a code block."""
    screen = pyte.Screen(40, 6)
    monkeypatch.setattr(answering, "is_terminal", lambda: True)
    monkeypatch.setattr(answering, "write_raw", lambda text: pyte.Stream(screen).feed(text.replace("\n", "\r\n")))
    writer = answering.writer(lambda columns: "the line below", plain=False, after="```text\nfirst **line")
    writer.write("**\n```\nSome **prose**.")
    assert "the line below" in screen.display[3]
    writer.finish()
    assert [row.rstrip() for row in screen.display] == ["**", "```", "Some prose.", "", "", ""]


def test_continue_hands_on_the_text_of_the_answer():
    found = []
    session = SimpleNamespace(messages=[{"role": "assistant", "content": "so far"}], continue_answer=None)
    chat = SimpleNamespace(session=session, stream=lambda start, after: found.append(after))
    CONVERSATION["continue"].do(chat, "")
    assert found == ["so far"]

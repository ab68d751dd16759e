"""How many rows a narrower terminal has added to those of the prompt. tmux, kitty and others wrap rows anew."""

from types import SimpleNamespace

import pytest
from prompt_toolkit.data_structures import Point
from prompt_toolkit.layout.screen import Char, Screen

from mistral_mlx.cli.chat.resize import erase_all_on_resize, rows_added


def app(rows, cursor_x, columns):
    """Return what `rows_added` looks at: the rows of a prompt with the cursor in the last one."""
    screen = Screen()
    for y, text in enumerate(rows):
        for x, char in enumerate(text):
            screen.data_buffer[y][x] = Char(char)
    moves = []
    return SimpleNamespace(
        renderer=SimpleNamespace(last_rendered_screen=screen, _cursor_pos=Point(cursor_x, len(rows) - 1)),
        output=SimpleNamespace(
            get_size=lambda: SimpleNamespace(columns=columns), cursor_up=lambda n: moves.append(("up", n))
        ),
        _on_resize=lambda: moves.append("redraw"),
        moves=moves,
    )


@pytest.mark.parametrize(
    ("rows", "cursor_x", "columns", "added"),
    [
        (["x" * 80, "y" * 10], 10, 80, 0),
        (["x" * 80, "y" * 10], 10, 120, 0),
        (["x" * 80, "y" * 10], 10, 40, 1),  # the first row takes two
        (["x" * 80, "y" * 50], 50, 40, 2),  # and the cursor's, too
        (["x" * 80 + " " * 20, "y"], 1, 40, 1),  # blanks at the end take nothing
        (["", "", "y"], 1, 40, 0),
    ],
)
def test_rows_that_are_wrapped_anew_are_counted(rows, cursor_x, columns, added):
    assert rows_added(app(rows, cursor_x, columns)) == added


@pytest.mark.parametrize(
    ("variables", "moves"),
    [
        ({"TERM": "xterm-256color"}, [("up", 1), "redraw"]),
        ({"TERM": "xterm", "XTERM_VERSION": "XTerm(379)"}, ["redraw"]),  # it cuts rows
        ({"TERM": "linux"}, ["redraw"]),
    ],
)
def test_they_are_erased_before_the_prompt_is_drawn_again(variables, moves, monkeypatch):
    monkeypatch.delenv("XTERM_VERSION", raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    narrower = app(["x" * 80, "y"], 1, 40)
    erase_all_on_resize(narrower)
    narrower._on_resize()
    assert narrower.moves == moves

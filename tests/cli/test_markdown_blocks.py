"""The blocks of an answer: lists, quotes, headings, code and tables; and a text that is continued."""

import re

import pytest
from helpers.markdown import continued, cut, marked, shown


def rows(text, columns=40):
    """Return the rows of `text`, which are the same in any pieces."""
    whole = shown([text], columns)
    for seed in range(5):
        assert shown(cut(text, seed), columns).rows == whole.rows
    return re.sub("<((│ )+)>", r"\1", marked(whole)).split("\n")


def test_lists_in_lists_keep_their_indent_and_their_hang():
    text = "1. one word after another, and so on and on\n   - two\n     - three\n\n     a paragraph\n2. `x`\n  - sloppy"
    assert rows(text) == [
        "1. one word after another, and so on",
        "   and on",
        "   • two",
        "     • three",
        "",
        "     a paragraph",
        "2. {x}",
        "  • sloppy",
    ]


def test_a_line_of_a_paragraph_that_begins_with_a_number_is_no_item():
    assert rows("The house number is\n14. Its street is long.", 20) == [
        "The house number is",
        "14. Its street is",
        "long.",
    ]


def test_tasks_are_shown_with_their_boxes():
    assert rows("- [ ] to do\n- [x] done\n- [X] **done**\n- [a] no task\n- [link](/x)") == [
        "[ ] to do",
        "[x] done",
        "[x] [done]",
        "• [a] no task",
        "• link< (/x)>",
    ]


def test_quotes_hold_items_and_code():
    assert rows("> - item\n> > deeper\n>\n> ```text\n> a **b**\n> ```\n> end\nlazy\n\nout") == [
        "│ • item",
        "│ │ deeper",
        "│ ",
        "<│ ```text>",
        "│ a **b**",
        "<│ ```>",
        "│ end",
        "│ lazy",
        "",
        "out",
    ]


def test_code_in_an_item_keeps_the_indent_of_the_item():
    assert rows("- run:\n  ```text\n  a\n    b\n  ```\n  then *this*") == [
        "• run:",
        "  <```text>",
        "  a",
        "    b",
        "  <```>",
        "  then /this/",
    ]


def test_headings_lose_their_marks_and_underlines_become_rules():
    assert rows("### Title ###\n### C#\nText *one*\n===\nOther\n---\n***") == [
        "[Title]",
        "[C#]",
        "Text /one/",
        "<════════>",
        "Other",
        "<─────>",
        f"<{'─' * 39}>",
    ]


TABLE = r"""| Name | Price | What it is |
|:--|--:|:-:|
| **apple** | 1.50 | a `fruit` |
| pipe \| bar | 22 | 日本 |
| short |"""


def test_a_table_is_drawn_when_it_has_ended():
    assert rows(TABLE + "\nAfter", 60) == [
        "[Name]      < │ >[Price]< │ >[What it is]",
        "<───────────┼───────┼───────────>",
        "[apple]     < │ > 1.50< │ > a {fruit}",
        "pipe | bar< │ >   22< │ >   日本",
        "short     < │ >     < │ >",
        "After",
    ]


def test_the_delimiter_row_may_begin_without_a_bar():
    assert rows("| a | b |\n--|:-:\n| 1 | 2 |") == ["[a]< │ >[b]", "<──┼──>", "1< │ >2"]


def test_a_bar_in_the_code_of_a_cell_is_escaped():
    assert rows("| a |\n|--|\n| `x \\| y` |") == ["[a]", "<─────>", "{x | y}"]


def test_cells_wrap_at_words_and_narrow_terminals_get_lists():
    table = "| a | b |\n|---|---|\n| one two three | four five six seven |\n| x | y |"
    rule = "<───────────┼───────────>"
    assert rows(table, 24) == [
        "[a]         < │ >[b]",
        rule,
        "one two   < │ >four five",
        "three     < │ >six seven",
        rule,
        "x         < │ >y",
    ]
    assert rows(table, 10)[:5] == ["[a: ]one", "two three", "[b: ]four", "five six", "seven"]


def test_rows_without_a_delimiter_are_shown_as_they_are():
    assert rows("| a | *b* |\n| c |\n\n| x | y |\n|---|\nz") == ["| a | /b/ |", "| c |", "", "| x | y |", "|---|", "z"]


def test_the_columns_stay_below_each_other_where_terminals_differ():
    table = "| a | b |\n|--|--|\n| 👩‍👩‍👧 | x |\n| word word | y |"
    for joins in (True, False):
        screen = shown([table], joins=joins)
        assert {
            row.index(("│", frozenset({"dim"}))) for row in screen.rows[:4] if ("│", frozenset({"dim"})) in row
        } == {10}


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        (
            '```python\nprint("Hello',
            ' World")\n```\nIt *ends*.',
            ["<```python>", 'print({"Hello}', '{ World"})', "<```>", "It /ends/."],
        ),
        (
            "Speak.",
            " Speak to me, and so on and on and on and on.",
            ["Speak.", "Speak to me, and so on and on and on", "and on."],
        ),
        (
            "- an item",
            " that goes on until the row has ended\n- two",
            ["• an item", "  that goes on until the row has ended", "• two"],
        ),
        ("Some **bold te", "xt** and on", ["Some **bold te", "[xt] and on"]),
        ("call `foo", "_bar` now", ["call `foo", "{_bar} now"]),
        ("### Tit", "le ###\nx", ["[Tit]", "[le]", "x"]),
        ("> quo", "te\n> on", ["│ quo", "│ te", "│ on"]),
        (
            "| a | b |\n|--|--|\n| 1 | 2 |\n| 3",
            " | 4 |\n\nx",
            ["[a]< │ >[b]", "<──┼──>", "1< │ >2", "3< │ >", "[a]< │ >[b]", "<──┼──>", "3< │ >4", "", "x"],
        ),
        ("text\n", "\nnext", ["text", "", "next"]),
        ("- ", "item", ["•", "• item"]),
        ("text", "\nnext", ["text", "next"]),
        ("- a\n  ```text\n  x", "\n  y", ["• a", "  <```text>", "  x", "  y"]),
        ("", "all", ["all"]),
    ],
)
def test_a_continued_answer_goes_on_in_its_style(before, after, expected):
    for seed in range(5):
        screen = continued(before, cut(after, seed))
        assert marked(screen).replace("<│ >", "│ ").split("\n") == expected


def test_cells_without_a_column_stay_visible():
    """They used to disappear, as GFM has it; a code span with a bar lost its end."""
    assert "y | z" in "\n".join(shown("| a | b |\n|---|---|\n| x | y | z |\n\n").lines)
    assert "a | b" in "\n".join(shown("| a | b |\n|---|---|\n| 1 | `a|b` |\n\n").lines)

"""docs/models.md says of the published checkpoints what the program says of them."""

from published import models_page


def test_the_page_is_up_to_date():
    page = models_page.PAGE.read_text("utf-8")
    assert models_page.BEGIN in page and models_page.END in page
    assert models_page.render(page) == page, "run: python tests/published/models_page.py"


def test_what_is_written_by_hand_stays():
    page = models_page.render(f"above\n{models_page.BEGIN}old\n{models_page.END}below\n")
    assert page.startswith("above\n") and page.endswith("below\n") and "old\n" not in page


def test_each_checkpoint_is_in_one_row():
    lines = models_page.tables().splitlines()
    for checkpoint in models_page.checkpoints():
        assert sum(line.startswith(f"| {checkpoint['name']} ") for line in lines) == 1

"""docs/cli.md lists exactly the program's commands and options."""

import importlib.util
import re
from pathlib import Path

from mistral_mlx.cli.statuses import Status

SCRIPT = Path(__file__).parents[2] / "docs" / "generate_cli.py"


def generator():
    spec = importlib.util.spec_from_file_location("generate_cli", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_up_to_date():
    module = generator()
    page = module.PAGE.read_text("utf-8")
    assert module.BEGIN in page and module.END in page
    assert module.render(page) == page, "run: python docs/generate_cli.py"


def test_every_option_is_on_the_page_and_what_is_written_by_hand_stays():
    module = generator()
    page = module.render(f"above\n{module.BEGIN}old\n{module.END}below\n")
    assert page.startswith("above\n") and page.endswith("below\n") and "old\n" not in page
    assert "`--top-p` P | `MISTRAL_MLX_TOP_P` | `0.95` |" in page


def test_the_page_lists_every_exit_status():
    _, _, section = generator().PAGE.read_text("utf-8").partition("## Exit statuses\n")
    rows = re.findall(r"^\| ([\d, ]+) \|", section.partition("\n## ")[0], re.MULTILINE)
    assert [int(number) for row in rows for number in row.split(",")] == sorted(Status, key=lambda s: (s == 141, s))

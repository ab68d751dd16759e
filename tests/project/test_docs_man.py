"""The man page has every command and option, and is correct for the programs that show it."""

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import typer.main

from mistral_mlx.cli.app import app
from mistral_mlx.cli.options.sources import NO_OPTIONS
from mistral_mlx.cli.statuses import Status

SCRIPT = Path(__file__).parents[2] / "docs" / "generate_man.py"
LINTERS = (["mandoc", "-Tlint", "-Wwarning"], ["groff", "-man", "-ww", "-z", "-Tutf8"])


@pytest.fixture(scope="module")
def man():
    spec = importlib.util.spec_from_file_location("generate_man", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_option_variable_and_status_is_on_the_page(man):
    page, program = man.page(), typer.main.get_command(app)
    commands = [((name,), command) for name, command in program.commands.items()]
    commands += [((*names, sub), of) for names, c in commands for sub, of in getattr(c, "commands", {}).items()]
    for names, command in [((), program), *commands]:
        called = f".B {man.roff(' '.join(('mistral-mlx', *names)))}\n"
        section = page.partition(called)[2].partition("\n.B ")[0]
        assert called in page, names
        for option in (p for p in command.params if p.param_type_name == "option"):
            flags = ", ".join(rf"\fB{man.roff(flag)}\fR" for flag in (*option.opts, *option.secondary_opts))
            assert f".TP\n{flags}" in section, (names, option.name)
    assert [name for name in NO_OPTIONS if rf"\fB{name}\fR" not in page] == []
    numbers = [int(n) for number, _ in man.statuses() for n in number.split(",")]
    assert sorted(numbers) == sorted(Status) and [n for n, _ in man.statuses() if rf"\fB{n}\fR" not in page] == []
    assert "Default: 0." in page and "Default: on." in page and "Default: 0.95." in page


def test_text_is_no_command_of_roff_and_keeps_its_characters(man):
    assert man.roff(r".a\b 'c' --d ~é") == r"\&.a\eb \(aqc\(aq \-\-d \(ti\[u00E9]"
    assert man.wrapped("such as `.EX`") == [r"such as \fB.EX\fR"]
    assert man.wrapped("y" * 79 + " .SH") == ["y" * 79, r"\&.SH"]
    page = man.page()
    commands = {line.split()[0] for line in page.splitlines() if line.startswith((".", "'"))}
    assert page.isascii() and commands == {".TH", ".SH", ".SS", ".PP", ".TP", ".B", ".EX", ".EE"}


def test_the_date_is_that_of_the_source(man, monkeypatch):
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "86400")
    assert re.match(r'\.TH MISTRAL\\-MLX 1 1970-01-02 "mistral-mlx [\d.]+"\n', man.page())


@pytest.mark.parametrize("linter", LINTERS, ids=lambda linter: linter[0])
def test_the_page_has_no_fault_of_form(man, linter, tmp_path):
    if shutil.which(linter[0]) is None:
        pytest.skip(f"{linter[0]} is not installed")
    (tmp_path / "page.1").write_text(man.page(), "ascii")
    result = subprocess.run([*linter, tmp_path / "page.1"], capture_output=True, text=True)
    assert (result.returncode, result.stdout + result.stderr) == (0, "")

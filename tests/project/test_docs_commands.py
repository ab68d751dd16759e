"""Every command in README.md and docs/ works as it is written, with a tiny model under the names that the pages use."""

import itertools
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import typer.main
from helpers.adapters import write_peft
from helpers.convert_sources import CONFIG
from helpers.fake_hub import fake_hub
from helpers.invoke import invoke
from helpers.pages import PROGRAM, SHELL, blocks, calls, is_syntax, spans, typed
from helpers.tiny_folder import repeat_forever, write_tiny_folder
from helpers.warm_program import warm_program

from mistral_mlx.cli.app import app
from mistral_mlx.cli.models.registry import register

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

# Calls that are not run here, as patterns, and why. That their commands and options exist is checked all the same.
NOT_RUN = {
    r"completion (fish|pwsh)": "that shell reads it",
    r"complete .*--schema ": "the stand-in never ends a text; tests/real/test_real_schemas.py runs it",
}

REFERENCE = ("cli.md",)  # pages whose blocks do not follow from each other
REGISTERED = ("demo", "mistral-4bit", "mistral-8bit")  # names of the demo model that pages use before they make it
PULLED = ("mistralai/Mistral-7B-Instruct-v0.3", "mistralai/Ministral-3-3B-Instruct-2512")

# Lines that do not call the program: these are run, because what follows needs them.
RUN = ("printf", "cat", "chmod", "echo", "export", "git commit", "jq", "mkdir", "sessions=", "sh ")
OTHERS = (".venv/bin/", "hf download", "make", "pip", "python3 -m venv", "source", "strace", "uv")

ENVIRONMENT = {
    "EDITOR": "write-something",
    "VISUAL": "",
    "MISTRAL_MLX_MAX_TOKENS": "4",
    "MISTRAL_MLX_REPEATS": "1",
    "MISTRAL_MLX_N_PROMPT": "16",
    "MISTRAL_MLX_CHUNKS": "2",
    "MISTRAL_MLX_SAVE": "1",  # as a chat in a terminal is
    "NO_PROXY": "127.0.0.1",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_AUTHOR_NAME": "A", "GIT_AUTHOR_EMAIL": "a@example.org", "GIT_COMMITTER_NAME": "A",
    "GIT_COMMITTER_EMAIL": "a@example.org", "GIT_EDITOR": "true",
}  # fmt: skip


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    """The folder for PATH with the program, and with stand-ins for programs that ask a person."""
    with warm_program(tmp_path_factory.mktemp("bin")) as folder:
        for name, script in {"fzf": "head -n 1", "write-something": "echo '# changed' >> \"$1\""}.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def things(tmp_path_factory):
    """A folder with all files that the pages name and do not make."""
    folder = tmp_path_factory.mktemp("things")
    shape = {key: CONFIG[key] for key in ("hidden_size", "intermediate_size", "head_dim", "sliding_window")}
    model = write_tiny_folder(folder / "Mistral-7B-Instruct-v0.3", tools=True, **shape, max_position_embeddings=8192)
    repeat_forever(model)  # so that no answer holds what a shell or git stumbles over
    for name in (model.name, "Mistral-7B"):
        shutil.copytree(model, folder / "home" / "models" / name)
    cached = folder / "home" / "huggingface" / "hub" / f"models--mistralai--{model.name}"
    shutil.copytree(model, cached / "snapshots" / ("c0ffee" + "0" * 34))
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("c0ffee" + "0" * 34)
    assert invoke("convert", model, folder / "demo", "--bits", "4", "-q").exit_code == 0
    assert invoke("export", model, folder / "model.Q4_K_M.gguf", "-q").exit_code == 0
    (folder / "path" / "to").mkdir(parents=True)
    (folder / "path" / "to" / "model").symlink_to(folder / "demo")
    write_peft(folder / "my-lora")
    for name in ("pyproject.toml", "setup.py", "Makefile"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "prompts.jsonl").write_text('"Name a colour."\n"Name an animal."\n')
    words = (ROOT / "LICENSE").read_text("utf-8").split()
    for name in ("some-text.txt", "wiki.test.raw", "sample.txt", "my.txt"):
        (folder / name).write_text(" ".join(words))
    git = "git init -q && git add Makefile && git commit -qm Begin && echo >> Makefile && git add setup.py"
    subprocess.run(git, shell=True, cwd=folder, check=True, env={**outside_git(), **ENVIRONMENT})
    return folder


def outside_git():
    """Return the environment without what a hook of git sets: the commands must not change this repository."""
    return {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}


@pytest.fixture(scope="module")
def hub(things):
    """The address of a hub that has the models which the pages fetch."""
    model = {path.name: path.read_bytes() for path in (things / "Mistral-7B-Instruct-v0.3").iterdir()}
    with fake_hub(models=dict.fromkeys(PULLED, model)) as served:
        yield served.address


@pytest.fixture
def reader(programs, things, hub, monkeypatch, tmp_path):
    """Return what makes a new reader, in a folder with the demo model and the files that pages name.

    A reader is a function that runs a command, and returns its status and what it says.
    """
    folders = (tmp_path / str(number) for number in itertools.count())

    def new(*, reference=False):
        folder = next(folders)
        shutil.copytree(things, folder, symlinks=True, copy_function=linked)
        if reference:
            shutil.copytree(things / "demo", folder / "mistral-4bit")
        environment = {
            **ENVIRONMENT,
            "HF_ENDPOINT": hub,
            "HF_HOME": str(folder / "home" / "huggingface"),
            "HOME": str(folder / "home"),
            "MISTRAL_MLX_HOME": str(folder / "own"),
            "PATH": f"{programs}:{os.environ['PATH']}",
        }
        monkeypatch.setenv("MISTRAL_MLX_HOME", environment["MISTRAL_MLX_HOME"])
        for name in REGISTERED:
            register(name, things / "demo")

        def run(*command):
            options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 120}
            done = subprocess.run(command, cwd=folder, env={**outside_git(), **environment}, **options)
            return done.returncode, done.stderr[-2000:]

        return run

    return new


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_commands_of_a_page_work(page, reader):
    run = None
    for block in shell_blocks(page):
        if script := [as_run(line) for line in typed(block) if is_run(line)]:
            if run is None or page.name in REFERENCE:
                run = reader(reference=page.name in REFERENCE)
            trap = "set -eo pipefail; trap 'echo \"failed: $BASH_COMMAND\" >&2' ERR"
            status, said = run("bash", "-c", "\n".join([trap, *script]))
            assert status == 0, f"{page.name}, line {block.start}: status {status}\n{said}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_and_option_that_a_page_names_exists(page):
    text = page.read_text("utf-8")
    lines = [line for block in blocks(text) for line in block.lines if PROGRAM in line and not is_python(block)]
    wrong = [wrong for line in [*lines, *spans(text)] for call in calls(line) if (wrong := unknown(call))]
    assert wrong == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_python_of_a_page_runs(page, reader):
    found = [block.lines for block in blocks(page.read_text("utf-8")) if is_python(block)]
    if found:
        status, said = reader()(sys.executable, "-c", "\n".join(line for lines in found for line in lines))
        assert status == 0, f"{page.name}: {said}"


@pytest.mark.parametrize(
    "command",
    [
        "mistral-mlx complete -m demo --no-such-option Hello",
        "mistral-mlx complete -m demo -f no-such-file.py Hello",
        "mistral-mlx info ./no-such-model",
        "mistral-mlx complete -m ./no-such-model Hello | cat",
    ],
)
def test_a_command_that_does_not_work_is_found(command, reader):
    assert reader()("bash", "-c", f"set -eo pipefail; {as_run(command)}")[0] != 0


def test_an_option_or_a_command_that_does_not_exist_is_found():
    assert unknown(["complete", "--no-such-option"]) == "complete --no-such-option"
    assert unknown(["no-such-command"]) == "no-such-command"
    assert unknown(["templates", "no-such-command"]) == "templates no-such-command"
    assert unknown(["complete", "[--top-p", "P]", "-n", "4", "--stop=x"]) is None


def linked(source, target):
    """Copy a file; weights are linked, because no command changes them in place."""
    if source.endswith((".safetensors", ".gguf")):
        os.link(source, target)
    else:
        shutil.copy(source, target)


def shell_blocks(page):
    """Return the blocks of a page that hold a line with the program."""
    found = [block for block in blocks(page.read_text("utf-8")) if block.language in SHELL]
    return [block for block in found if any(list(calls(line)) for line in typed(block))]


def is_python(block):
    return block.lines[0].startswith(("from ", "import "))


def is_run(line):
    """Return whether a typed line is run here. A line that this list does not know is an error."""
    found = [" ".join(call) for call in calls(line)]
    if not found:
        assert line.startswith((*RUN, *OTHERS)), f"say in this test whether to run: {line}"
        return line.startswith(RUN)
    return not is_syntax(line) and not any(re.match(p, call) for p in NOT_RUN for call in found)


def as_run(line):
    """Return a line as the shell gets it: a person types into a chat, and a tiny model writes no code block."""
    for call in calls(line):
        if call[0] == "chat":
            line = f"{{ {line}\n}} <<< Hello"
        if {"-x", "--extract"} & set(call):
            line = f"{{ {line}\n}} || [ $? -eq 7 ]"
    return line


def unknown(call):
    """Return the first command or option of a call that the program does not have, or None."""
    command, names = program(), []
    for word in call:
        word = word.strip("[]").partition("=")[0]
        children = getattr(command, "commands", {})
        if word.startswith("-") and word not in options(command):
            return " ".join([*names, word])
        if children and word in children:
            command, names = children[word], [*names, word]
        elif children and not word.startswith(("-", ".")) and not word.isupper():
            return " ".join([*names, word])
    return None


@cache
def program():
    return typer.main.get_command(app)


def options(command):
    """Return the options of a command."""
    own = {flag for parameter in command.params for flag in (*parameter.opts, *parameter.secondary_opts)}
    return own | {"--help", "-h", "--install-completion", "-"}

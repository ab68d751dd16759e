"""Who may import whom, read from the source of every module; knows nothing of what the modules do."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

# A module may import what stands to the left of it, on any line, and all that those may import. A folder is one word.
ORDER = """
    errors  folder  tensor_files  args  cache  model  loading
    args  layers
    kernels  rope  model
    errors  kernels  cache  layers  model
    errors  folder  tokenizer_settings  tokenizer_base  tokenizer_tekken  tokenizer_hf  tokenizer_sp  tokenizer  loading
    tokenizer_settings  chat_template
    errors  detokenizer  tokenizer_base
    errors  template_budget  template_sandbox  chat_template  instruct  session
    cache  snapshots  session_cache  session
    errors  turns  context_use  session
    args  context_use
    instruct  model  fingerprint  session
    folder  tensor_files  kernels  cache  saved_cache  saved_session
    turns  instruct  tokenizer  saved_messages  saved_session
    session  saved_session  __init__
    tokenizer_base  instruct
    errors  filters  penalties  sampling  generation  session
    filters  tokenizer_base  dry  sampling
    errors  knobs  sampling_options  sampling
    sampling_options  cli
    sampling  samples  cli
    errors  logprobs  generation  samples
    errors  tokenizer_base  infill  cli
    cache  samples
    tokenizer  model  generation
    kernels  memory  generation
    generation  benchmark  cli
    errors  scores  evaluation  cli
    cache  model  evaluation
    evaluation  convert
    loading  session  version  __init__  convert  cli
"""
LINES = [line.split() for line in ORDER.strip().splitlines()]
NOT_FOR_THE_ENGINE = {"typer", "rich", "prompt_toolkit", "transformers", "mlx_lm"}
TERMINAL_CALLS = {"print", "input", "exit", "quit"}

ROOT = Path(__file__).parents[2]
FOLDERS = {"mistral_mlx": "mistral_mlx", "mistral_mlx.convert": "convert", "mistral_mlx.cli": "cli"}
MODULES = {
    ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)): ast.parse(path.read_text("utf-8"))
    for package, folder in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))  # does not go through the links mistral_mlx/cli and /convert
}
ENGINE = [name for name in MODULES if not name.startswith(("mistral_mlx.convert.", "mistral_mlx.cli."))]


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_one_way(module: str) -> None:
    ours = {name for name in imports(module) if name.split(".")[0] == "mistral_mlx"}
    below = left_of(word(module)) | {word(module)}
    assert {name for name in ours if word(name) not in below} == set()


@pytest.mark.parametrize("module", ENGINE)
def test_engine_does_not_know_it_has_a_command_line(module: str) -> None:
    assert {name.split(".")[0] for name in imports(module)} & NOT_FOR_THE_ENGINE == set()
    calls = [node.func for node in ast.walk(MODULES[module]) if isinstance(node, ast.Call)]
    assert {call.id for call in calls if isinstance(call, ast.Name)} & TERMINAL_CALLS == set()


def test_every_module_has_its_place_in_the_order() -> None:
    assert {name.split(".")[1] for name in MODULES} == {name for line in LINES for name in line}


def test_cli_and_convert_are_only_known_below_mistral_mlx() -> None:
    assert [m for m in MODULES for name in imports(m) if name.split(".")[0] in ("cli", "convert", "tests")] == []


def test_the_page_on_the_architecture_names_every_file() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    files = {path.name for folder in ("mistral_mlx", "cli") for path in (ROOT / folder).glob("*.py")}
    files |= {path.name for path in (ROOT / "convert").rglob("*.py")}
    assert {name for name in files - {"__init__.py", "version.py"} if name not in page} == set()


def word(name: str) -> str:
    """Return the word of ORDER for a dotted name; what is no module is taken from the package itself."""
    second = f"{name}.__init__".split(".")[1]
    return second if any(second in line for line in LINES) else "__init__"


def left_of(name: str) -> set[str]:
    direct = {other for line in LINES if name in line for other in line[: line.index(name)]}
    return direct.union(*map(left_of, direct))


def imports(module: str) -> Iterator[str]:
    """Yield the full dotted name of everything a module imports, inside functions too."""
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.split(".")[: -node.level] if node.level else []
            yield from (".".join((*package, *filter(None, [node.module]), alias.name)) for alias in node.names)

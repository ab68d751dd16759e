"""Which module may import which; imports run in one direction, without a circle."""

import ast
from functools import cache
from pathlib import Path

import pytest

# For each package, its modules and folders from the lowest to the highest: each may import those to its left.
ORDER = {
    "mistral_mlx": "version errors progress kernels files tokenizer prompt model distributed sampling constraint "
    "generation session measure __init__ convert cli __main__",
    "mistral_mlx.kernels": "native dtypes fallback weights codes ready __init__ experts memory",
    "mistral_mlx.kernels.fallback": "__init__ float_modes products search packing",
    "mistral_mlx.files": "__init__ json keys folder safetensors whole",
    "mistral_mlx.tokenizer": "__init__ versions named_templates detokenizer settings base document sentencepiece "
    "tekken huggingface choose",
    "mistral_mlx.prompt": "__init__ schema content tools messages structure calls mistral_formats infill budget meter "
    "sandbox template disguise encode official",
    "mistral_mlx.model": "__init__ blocks wrappers rope packing rope_config families args known "
    "cache_options cache layers feed_forward block at_once mistral weights expert_files loading",
    "mistral_mlx.distributed": "__init__ launched group joining share twins loading agree held_signals part "
    "leader follower",
    "mistral_mlx.sampling": "__init__ knobs options filters penalties dry logprobs device sampler",
    "mistral_mlx.constraint": "__init__ limits regex_reader regex_sets regex rules lark_text grammar_tokens gbnf lark "
    "short_form json_schema schema calls grammar constraint vocabulary guide",
    "mistral_mlx.generation": "__init__ limits snapshots ahead stop channels drafts timeline draft_model lazy decode "
    "response answer stream together",
    "mistral_mlx.session": "__init__ turns context_use fingerprint session compact saved_document "
    "saved_files saved_cache saved_messages saved kept_entry kept",
    "mistral_mlx.measure": "__init__ benchmark scores evaluation",
    "mistral_mlx.convert": "files storage sources plan report rounding write verify export run __init__",
    "mistral_mlx.convert.files": "__init__ pipeline staging safetensors_writer",
    "mistral_mlx.convert.storage": "__init__ rows bits plain mlx fp8 gptq gguf_grids gguf heads low_rank joined",
    "mistral_mlx.convert.sources": "__init__ source tokenizer_files weights entries experts text_model mlx fp8 gptq "
    "native_params native hf support gguf adapters open",
    "mistral_mlx.convert.sources.gguf": "__init__ header split sentencepiece tokenizer config source",
    "mistral_mlx.convert.sources.adapters": "__init__ changes peft mlx adapter",
    "mistral_mlx.convert.plan": "__init__ choice request step notes plan outlook",
    "mistral_mlx.convert.rounding": "__init__ text streamed inputs compensate learned sensitivity methods allocate job",
    "mistral_mlx.convert.write": "__init__ quantize mlx_lm mlx_lm_child target",
    "mistral_mlx.convert.verify": "__init__ sample_text verify",
    "mistral_mlx.convert.export": "__init__ gguf_pack gguf_rope gguf_vocab gguf_writer gguf_export",
    "mistral_mlx.cli": "__init__ statuses terminal models options answers chat reports commands app main",
    "mistral_mlx.cli.terminal": "__init__ sanitize size style cells row status_row highlight markdown signals "
    "streams thoughts keyboard table bar notes editor reading",
    "mistral_mlx.cli.terminal.markdown": "node emphasis links reader inline table blocks starts code stream __init__",
    "mistral_mlx.cli.models": "__init__ folder_lock home small_file on_disk hub names lm_studio ollama found "
    "registry kept sharing opening index fetched demo pull",
    "mistral_mlx.cli.models.hub": "__init__ settings repo_id opener web repository choice download record gathered "
    "outlook snapshots",
    "mistral_mlx.cli.options": "__init__ values other_programs sources config_file config_edit answer shared "
    "constraint sampling refusals following help command",
    "mistral_mlx.cli.answers": "__init__ remarks beginning code_block constraints tool_choice prompt said "
    "prompt_templates last_completion sources batch_files batch_requests batch output job complete",
    "mistral_mlx.cli.chat": "__init__ background remarks cache_times store saving session_models transcript quotes "
    "keys resize input toolbar settings words attachments clipboard room answering opening history first chat status "
    "command compact commands file_commands help loop start",
    "mistral_mlx.cli.reports": "__init__ config cache sessions discovered models pull tokens info bench evaluate "
    "convert export doctor",
    "mistral_mlx.cli.reports.doctor": "__init__ findings installation machine files models surroundings report",
    "mistral_mlx.cli.commands": "__init__ offers complete batch templates cache chat sessions convert export info "
    "bench evaluate pull models tokens config doctor completion",
}
NOT_FOR_THE_ENGINE = {"typer", "rich", "prompt_toolkit", "transformers", "mlx_lm"}
EXTENSION = "_ext"  # compiled: it imports nothing
TERMINAL_CALLS = {"print", "input", "exit", "quit"}

ROOT = Path(__file__).parents[2]
FOLDERS = {"mistral_mlx": "mistral_mlx", "mistral_mlx.convert": "convert", "mistral_mlx.cli": "cli"}
MODULES = {
    ".".join((package, *path.relative_to(ROOT / folder).with_suffix("").parts)): ast.parse(path.read_text("utf-8"))
    for package, folder in FOLDERS.items()
    for path in sorted((ROOT / folder).rglob("*.py"))  # does not follow the links mistral_mlx/cli and /convert
}
ENGINE = [name for name in MODULES if not name.startswith(("mistral_mlx.convert.", "mistral_mlx.cli."))]


@pytest.mark.parametrize("package", ORDER)
def test_imports_run_one_way(package: str) -> None:
    order = ORDER[package].split()
    wrong = [
        f"{module} imports {name}"
        for module in MODULES
        for name in imports(module)
        if (pair := children(package, module, name)) and order.index(pair[0]) < order.index(pair[1])
    ]
    assert wrong == []


def test_every_module_has_its_place_in_the_order() -> None:
    for package, order in ORDER.items():
        found = {child(package, module) for module in MODULES if module.startswith(f"{package}.")}
        assert set(order.split()) == found, f"{package}: give each module its place in ORDER, above"


@pytest.mark.parametrize("module", ENGINE)
def test_engine_does_not_know_it_has_a_command_line(module: str) -> None:
    assert {name.split(".")[0] for name in imports(module)} & NOT_FOR_THE_ENGINE == set()
    calls = [node.func for node in ast.walk(MODULES[module]) if isinstance(node, ast.Call)]
    assert {call.id for call in calls if isinstance(call, ast.Name)} & TERMINAL_CALLS == set()


def test_cli_and_convert_are_only_known_below_mistral_mlx() -> None:
    assert [m for m in MODULES for name in imports(m) if name.split(".")[0] in ("cli", "convert", "tests")] == []


def children(package: str, module: str, name: str) -> tuple[str, str] | None:
    """Return the children of `package` that import and are imported; None if one lies outside or both are the same."""
    if not (module.startswith(f"{package}.") and name.startswith(f"{package}.")):
        return None
    pair = child(package, module), child(package, name)
    return pair if pair[0] != pair[1] else None


def child(package: str, module: str) -> str:
    """Return the part of a module's dotted name that follows its package's."""
    return module.split(".")[package.count(".") + 1]


@cache
def imports(module: str) -> list[str]:
    """Return the full dotted name of every module that a module imports, inside functions too."""
    found = []
    for node in ast.walk(MODULES[module]):
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            base = ".".join((*above, *filter(None, [node.module])))
            for alias in node.names:
                if alias.name == EXTENSION:
                    continue
                names = f"{base}.{alias.name}", f"{base}.{alias.name}.__init__", base, f"{base}.__init__"
                found.append(next((name for name in names if name in MODULES), base))
    return found

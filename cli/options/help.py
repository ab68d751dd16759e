"""How ``--help`` reads: options in sections, and examples at the end. The parser's own text, in plain characters."""

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

SECTIONS = {
    "Prompt": "prompt_file raw system template stop prefill fim_prefix fim_suffix file use_template variable".split(),
    "Sampling": "temperature top_p top_k min_p typical_p xtc_probability xtc_threshold repetition_penalty "
    "repetition_context_size presence_penalty frequency_penalty logit_bias dry_multiplier dry_base dry_allowed_length "
    "dry_penalty_last_n dry_sequence_breaker seed".split(),
    "Evaluation": "text against context stride chunks".split(),
    "Output": "as_json jsonl stats quiet no_stream stream extract logprobs plain fail_on_length".split(),
    "Weights": "bits group_size mode recipe rule target_bpw method calibrate dtype dequantize adapter verify "
    "verify_text allow_nonfinite".split(),
    "Machine": "device threads force".split(),
}
EXAMPLES = {
    "complete": [
        'mistral-mlx complete -m demo "What is the capital of France?"',
        'git diff | mistral-mlx complete -m demo "Write the commit message for this diff."',
        "mistral-mlx complete -m demo --raw --temperature 0 --max-tokens 40 'Once upon a time'",
    ],
    "chat": [
        "mistral-mlx chat -m demo",
        "mistral-mlx chat -m demo --system 'Be brief.' --dry-multiplier 0.8",
    ],
    "convert": [
        "mistral-mlx convert ~/models/Mistral-7B-Instruct-v0.3",
        "mistral-mlx convert model.Q4_K_M.gguf mistral-8bit --bits 8",
        "mistral-mlx convert ~/models/Mistral-7B-Instruct-v0.3 --target-bpw 4.8 --calibrate sample.txt",
        "mistral-mlx convert mistral-8bit mistral-plain --dequantize --dtype bfloat16",
    ],
    "export": [
        "mistral-mlx export demo demo.gguf",
        "mistral-mlx export ~/models/Mistral-7B-Instruct-v0.3 mistral.gguf --outtype q8_0",
    ],
    "info": ["mistral-mlx info demo"],
    "bench": ["mistral-mlx bench -m demo -p 512 -n 128 --depth 4096"],
    "eval": [
        "mistral-mlx eval -m demo --text wiki.test.raw --chunks 40",
        "mistral-mlx eval -m mistral-4bit --against mistral-8bit --text wiki.test.raw --json",
    ],
    "pull": ["mistral-mlx pull demo"],
    "models": ["mistral-mlx models", "mistral-mlx models --json | jq -r '.[].name'"],
    "tokens": ["mistral-mlx tokens -m demo 'Hello there'", "mistral-mlx tokens -m demo --chat --system 'Be brief.' Hi"],
    "completion": [
        "source <(mistral-mlx completion bash)",
        "mistral-mlx completion fish | source",
    ],
}
ELSEWHERE = "A default can be set by MISTRAL_MLX_<OPTION> (MISTRAL_MLX_TOP_P for --top-p) or in the config file;"
ELSEWHERE_TOO = "'mistral-mlx config' shows all. Exit statuses: docs/cli.md."


class Command(TyperCommand):
    """A command whose options stand in sections."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments, then options by section; what belongs to none comes first."""
        section_of = {name: title for title, names in SECTIONS.items() for name in names}
        rows: dict[str, list[tuple[str, str]]] = {"Arguments": [], "Options": [], **{title: [] for title in SECTIONS}}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx)
            if row is not None:
                is_option = parameter.param_type_name == "option"
                rows[section_of.get(parameter.name, "Options") if is_option else "Arguments"].append(row)
        for title, of in rows.items():
            if of:
                with formatter.section(title):
                    formatter.write_dl(of)

    def format_epilog(self, ctx: Any, formatter: Any) -> None:
        """Write the examples as they are, and where else options can be set."""
        examples = EXAMPLES.get(self.name or "", [])
        if examples:
            formatter.write("\nExamples:\n" + "".join(f"  {line}\n" for line in examples))
        formatter.write(f"\n{ELSEWHERE}\n{ELSEWHERE_TOO}\n")


class Application(typer.Typer):
    """The program: its commands are of the kind above."""

    def command(self, *args: Any, **settings: Any) -> Callable[[Any], Any]:
        """Register a command; see typer.Typer."""
        return super().command(*args, **{"cls": Command, **settings})

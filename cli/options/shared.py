"""The options that several commands share, with their help; the defaults are the engine's."""

from typing import Annotated

import typer

from mistral_mlx.cli.models.registry import model_names

# Written again here, so that --help need not import the engine; a test holds them equal.
TEMPERATURE, TOP_P, TOP_K, MIN_P, REPETITION_PENALTY, MAX_TOKENS = 0.7, 0.95, 0, 0.0, 1.0, 2048
N_PROMPT, N_GEN, DEPTH, REPEATS = 512, 128, 0, 5

Model = Annotated[
    str | None,
    typer.Option(
        "--model", "-m", metavar="MODEL", autocompletion=model_names, help="A model folder, or a registered name."
    ),
]
System = Annotated[str | None, typer.Option(metavar="TEXT", help="System prompt: how to behave.")]
Template = Annotated[
    str | None,
    typer.Option(metavar="VERSION", help="Instruct format to use instead of the model's own: v1, v2, v3 or v7."),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", metavar="N", help="Stop after this many tokens.")]
Temperature = Annotated[
    float, typer.Option(metavar="T", help="0 always takes the likeliest token; 1 is the model's own.")
]
TopP = Annotated[float, typer.Option(metavar="P", help="Keep the likeliest tokens that together reach P; 1 is off.")]
TopK = Annotated[int, typer.Option(metavar="K", help="Keep the K likeliest tokens; 0 is off.")]
MinP = Annotated[
    float, typer.Option(metavar="P", help="Keep tokens at least P times as likely as the first; 0 is off.")
]
RepetitionPenalty = Annotated[
    float, typer.Option(metavar="X", help="Above 1, tokens that were there become less likely; 1 is off.")
]
Stop = Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text; may be repeated.")]
Seed = Annotated[int | None, typer.Option(metavar="N", help="Makes sampling repeatable; random by default.")]
Device = Annotated[str, typer.Option(metavar="auto|cpu|gpu", help="Where to compute.")]
Threads = Annotated[
    int,
    typer.Option(metavar="N", help="Threads on a CPU; 0 is one per physical core."),
]
NPrompt = Annotated[int, typer.Option("--n-prompt", "-p", metavar="N", help="Prompt tokens of the prefill; 0: none.")]
NGen = Annotated[int, typer.Option("--n-gen", "-n", metavar="N", help="Tokens to decode; 0: none.")]
Depth = Annotated[int, typer.Option(metavar="N", help="Tokens in the cache before either begins.")]
Repeats = Annotated[int, typer.Option(metavar="N", help="Times to measure, after a warm-up that does not count.")]
Force = Annotated[bool, typer.Option("--force", help="Load even if the memory does not suffice.")]
Stats = Annotated[bool, typer.Option("--stats", help="Counts, speeds, memory and seed on stderr.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Nothing on stderr but errors.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON object instead of text.")]


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the option `name` stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"  # typer does not give out the values by name

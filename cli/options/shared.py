"""The options that several commands share, with their help; the defaults are the engine's."""

from functools import partial
from typing import Annotated

import typer

from mistral_mlx.cli.models.registry import model_names, only_registered
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import OptionError, shown

from .answer import AnswerKnobs

# Sections of --help, in their order.
PANELS = ("Prompt", "Form of the answer", "Sampling", "Evaluation", "Weights", "Output", "Machine")
prompt_option, constraint_option, sampling_option, evaluation_option, weights_option, output_option, machine_option = (
    partial(typer.Option, rich_help_panel=panel) for panel in PANELS
)

MAX_TOKENS, DRAFT = AnswerKnobs.max_tokens, AnswerKnobs.draft
# Written again here, so that --help need not import the engine; a test holds them equal.
N_PROMPT, N_GEN, DEPTH, REPEATS = 512, 128, 0, 5
KV_BITS, SINKS = 16, 0

Model = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        autocompletion=model_names,
        help="A model folder, a registered name, or ORG/REPO.",
    ),
]
ModelName = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        autocompletion=model_names,
        help="A model folder, a registered name, or ORG/REPO; the same as --model.",
    ),
]
TypedModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "-m",
        metavar="MODEL",
        allow_from_autoenv=False,  # a variable set for other commands must not shift the arguments
        autocompletion=model_names,
        help="The model, instead of the first argument.",
    ),
]
System = Annotated[
    str | None,
    prompt_option(
        metavar="TEXT", help="The system prompt: how the model is to behave; @model is the one that comes with it."
    ),
]
Template = Annotated[
    str | None,
    prompt_option(metavar="VERSION", help="Chat format instead of the model's own: v1, v2, v3, v7, v11, v13 or v15."),
]
ReasoningEffort = Annotated[
    str | None,
    prompt_option(metavar="none|high", help="How much the model reasons, if it has a setting for that (v15)."),
]
MaxTokens = Annotated[int, typer.Option("--max-tokens", "-n", metavar="N", help="Stop after this many tokens.")]
Stop = Annotated[
    list[str] | None, prompt_option(metavar="TEXT", help="End the answer before this text; may be repeated.")
]
Device = Annotated[str, machine_option(metavar="auto|cpu|gpu", help="The device that computes.")]
Threads = Annotated[
    int,
    machine_option(metavar="N", help="Threads on a CPU; 0 is one per fast physical core."),
]
Draft = Annotated[
    int,
    machine_option(
        metavar="N",
        help="On a CPU, guess up to N tokens from the text and read them in one pass; 0 is off. No answer changes.",
    ),
]
DraftModel = Annotated[
    str | None,
    machine_option(
        "--draft-model",
        metavar="MODEL",
        autocompletion=model_names,
        help="A small model with the same tokenizer that guesses instead; it seldom pays on a CPU.",
    ),
]
Parallel = Annotated[
    int,
    machine_option(
        metavar="N", help="Answers that are decoded together on a CPU; 0 is as many as the memory has room for."
    ),
]
Exact = Annotated[
    bool,
    machine_option(
        "--exact/--no-exact",
        help="Round activations to 16 bits on a CPU: slower, and as exact as float32. The default is 8 bits, rotated.",
    ),
]
Cache = Annotated[
    bool,
    machine_option(
        "--cache/--no-cache",
        help="Keep what comes before your input on the disk; the next call need not read it again.",
    ),
]
CacheLimit = Annotated[
    float,
    machine_option(
        metavar="GB", help="The most that all kept prompts may take on the disk; for the caches of saved chats, too."
    ),
]
CACHE_LIMIT = 2.0
NPrompt = Annotated[int, typer.Option("--n-prompt", "-p", metavar="N", help="Prompt tokens of the prefill; 0: none.")]
NGen = Annotated[int, typer.Option("--n-gen", "-n", metavar="N", help="Tokens to decode; 0: none.")]
Depth = Annotated[int, typer.Option(metavar="N", help="Tokens in the cache before each measurement begins.")]
Repeats = Annotated[int, typer.Option(metavar="N", help="How often to measure, after one warm-up.")]
KvBits = Annotated[
    int,
    machine_option(
        metavar="16|8",
        help="Bits of a cached number: 8 halve the memory of a long text, and change answers a little.",
    ),
]
Window = Annotated[
    int | None,
    machine_option(
        metavar="N",
        help="See only the last N tokens, where the model sees more: memory stops growing, the rest is forgotten.",
    ),
]
Sinks = Annotated[
    int, machine_option(metavar="K", help="With --window, see the first K tokens, too; 4 keep most models fluent.")
]
Pipeline = Annotated[
    bool,
    machine_option(
        "--pipeline",
        help="Of several processes (mlx.launch), let each have some of the layers, and not a share of every layer.",
    ),
]
IgnoreMemory = Annotated[
    bool, machine_option("--ignore-memory", help="Load the model even if the memory is too small.")
]
Overwrite = Annotated[
    bool,
    output_option(
        "--overwrite",
        allow_from_autoenv=False,  # a variable set long ago must not delete a model
        help="Replace the target if it exists.",
    ),
]
Stats = Annotated[bool, output_option("--stats", help="Print counts, speeds, memory and the seed to stderr.")]
Quiet = Annotated[bool, output_option("--quiet", "-q", help="Write only errors to stderr.")]
Json = Annotated[bool, output_option("--json", help="Write one JSON object instead of text.")]


def named_model(context: typer.Context, argument: str | None, model: str | None) -> str | None:
    """Return the model that an argument or ``--model`` names. Raises OptionError if both are typed and differ."""
    if argument and is_given(context, "model") and argument != model:
        raise OptionError(f"two models are given, {shown(argument)} and --model {shown(model)}; give one")
    return argument or model


def chosen_model(model: str | None, notes: Notes) -> str:
    """Return the model that is given, or the name of the only registered one, which is said. Raises OptionError."""
    if model:
        return model
    name = only_registered()
    notes.say(f"using {shown(name)}, the only registered model")
    return name


def model_and_target(
    context: typer.Context, first: str | None, second: str | None, model: str | None
) -> tuple[str | None, str | None]:
    """Return the model and the target of ``[MODEL] TARGET``, where ``--model`` may take the place of the first."""
    if model and second is None and first != model:
        return model, first
    return named_model(context, first, model), second


def is_given(context: typer.Context, name: str) -> bool:
    """Whether the option `name` stands on the command line."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"  # typer does not give out the values by name

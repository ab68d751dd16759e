"""The options of ``complete``, and what they and a template make together; heavy imports are inside."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import constraint, shared
from mistral_mlx.cli.options.answer import AnswerKnobs, from_plain
from mistral_mlx.cli.options.sampling import with_sampling
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.errors import OptionError

from .offers import template_names

STARTED = time.perf_counter()
EXAMPLES = """\
mistral-mlx complete -m demo "What is the capital of France?"
git diff | mistral-mlx complete -m demo "Write a commit message for this."
mistral-mlx complete -m demo --raw --temperature 0 -n 40 'Once upon a time'
"""


@with_sampling
def complete(
    context: typer.Context,
    prompt: Annotated[str | None, typer.Argument(help="The prompt; it follows the text from standard input.")] = None,
    model: shared.Model = None,
    prompt_file: Annotated[
        Path | None, shared.prompt_option(metavar="FILE", help="Read the prompt from a file.")
    ] = None,
    file: Annotated[
        list[Path] | None,
        shared.prompt_option(
            "--file", "-f", metavar="FILE", help="Add this file to the prompt, with its name; may be repeated."
        ),
    ] = None,
    prompt_template: Annotated[
        str | None,
        shared.prompt_option(
            "--prompt-template",
            "-t",
            metavar="NAME",
            autocompletion=template_names,
            help="Put the prompt into your prompt template NAME.",
        ),
    ] = None,
    var: Annotated[
        list[str] | None,
        shared.prompt_option(metavar="NAME=VALUE", help="Set a variable of the prompt template; may be repeated."),
    ] = None,
    last: Annotated[
        bool, shared.prompt_option("--continue", "-c", help="Go on from the last completion; the prompt is said next.")
    ] = False,
    raw: Annotated[
        bool, shared.prompt_option("--raw", help="Continue the text as it is, without a chat format.")
    ] = False,
    fim_prefix: Annotated[
        str | None,
        shared.prompt_option(
            metavar="TEXT", help="Fill in the middle: the text before the gap; by default the prompt."
        ),
    ] = None,
    fim_suffix: Annotated[
        str | None, shared.prompt_option(metavar="TEXT", help="Fill in the middle: the text after the gap.")
    ] = None,
    prefill: Annotated[str, shared.prompt_option(metavar="TEXT", help="Begin the answer with this text.")] = "",
    system: shared.System = None,
    template: shared.Template = None,
    messages: Annotated[
        str | None,
        shared.prompt_option(metavar="FILE", help="Answer the messages in this JSON file instead of a prompt."),
    ] = None,
    tools: Annotated[
        str | None,
        shared.prompt_option(metavar="FILE", help="Offer the tools in this JSON file; calls are written, not made."),
    ] = None,
    tool_choice: Annotated[
        str | None,
        shared.prompt_option(
            metavar="auto|required|none|NAME",
            help="With --tools: call some if the model likes, one at least, none, or the tool NAME once.",
        ),
    ] = None,
    schema: constraint.Schema = None,
    schema_multi: constraint.SchemaMulti = False,
    schema_prompt: constraint.SchemaPrompt = True,
    regex: constraint.Regex = None,
    grammar: constraint.Grammar = None,
    reasoning_effort: shared.ReasoningEffort = None,
    max_tokens: shared.MaxTokens = shared.MAX_TOKENS,
    samples: Annotated[int, shared.output_option(metavar="K", help="Write K answers, with consecutive seeds.")] = 1,
    stop: shared.Stop = None,
    extract: Annotated[
        bool, shared.output_option("--extract", "-x", help="Write only the first code block, and stop after it.")
    ] = False,
    stream: Annotated[
        bool, shared.output_option("--stream/--no-stream", help="Write the answer while the model generates it.")
    ] = True,
    as_json: shared.Json = False,
    as_jsonl: Annotated[
        bool, shared.output_option("--jsonl", help="Write one JSON object for each event, when it happens.")
    ] = False,
    logprobs: Annotated[
        int | None,
        shared.output_option(
            metavar="K", help="Add the log probabilities of each token and of the K likeliest to the JSON."
        ),
    ] = None,
    reasoning: Annotated[
        str | None,
        shared.output_option(
            metavar="show|hide", help="Write the reasoning to stderr, or not; by default if that is a terminal."
        ),
    ] = None,
    fail_on_length: Annotated[
        bool, shared.output_option("--fail-on-length", help="Exit with status 6 if a limit ended the answer.")
    ] = False,
    save: Annotated[bool, shared.output_option(help="Keep the text of this completion for --continue.")] = True,
    stats: shared.Stats = False,
    quiet: shared.Quiet = False,
    cache: shared.Cache = True,
    cache_limit: shared.CacheLimit = shared.CACHE_LIMIT,
    device: shared.Device = "auto",
    threads: shared.Threads = 0,
    draft: shared.Draft = shared.DRAFT,
    draft_model: shared.DraftModel = None,
    parallel: shared.Parallel = 0,
    exact: shared.Exact = False,
    kv_bits: shared.KvBits = shared.KV_BITS,
    window: shared.Window = None,
    sinks: shared.Sinks = shared.SINKS,
    pipeline: shared.Pipeline = False,
    ignore_memory: shared.IgnoreMemory = False,
    **sampling: Any,
) -> None:
    """Answer a prompt, or continue a text, on stdout.

    The prompt is standard input, then the files of -f, then --prompt-file, then the argument, with a blank line
    between them.
    """
    from mistral_mlx.cli.answers import complete as command
    from mistral_mlx.cli.answers import last_completion
    from mistral_mlx.cli.answers.constraints import Wanted
    from mistral_mlx.cli.answers.job import Job, make_samplers
    from mistral_mlx.cli.answers.prompt import Prompt
    from mistral_mlx.cli.answers.prompt_templates import load_template, parse_variables
    from mistral_mlx.cli.answers.sources import Sources, read_list
    from mistral_mlx.cli.answers.tool_choice import tool_choice_of
    from mistral_mlx.cli.models.kept import kept_prompts
    from mistral_mlx.cli.models.opening import open_drafter, open_model, use_machine
    from mistral_mlx.model.cache_options import CacheOptions
    from mistral_mlx.prompt.official import system_of

    chosen = load_template(prompt_template) if prompt_template is not None else None
    if var and chosen is None:
        raise OptionError("--var is for the variables of a template; name one with --prompt-template")
    is_infill = fim_prefix is not None or fim_suffix is not None
    if last:
        is_raw = raw or (chosen is not None and chosen.raw)
        excluded = {"--messages": messages is not None, "--tools": tools is not None, "--samples": samples > 1}
        last_completion.check_continues({"--raw": is_raw, "filling in the middle": is_infill, **excluded})
    earlier = last_completion.load() if last else None
    asked_for = answer_options(context, sampling, {} if chosen is None else chosen.options)
    wanted = Wanted(schema, schema_multi, regex, grammar).over(chosen.schema if chosen else None)
    bound = wanted.constraint()
    offered = [] if tools is None else read_list(tools, "--tools")
    frame = Prompt(
        system=system,
        template=template,
        raw=raw,
        prefill=prefill.rstrip(" "),  # models write a space before a word, not after it
        tools=offered,
        tool_choice=tool_choice_of(tool_choice, offered, "--tool-choice"),
        reasoning_effort=asked_for.reasoning_effort or None,
        schema=bound.schema if bound is not None and schema_prompt else None,
    )
    variables = parse_variables(var or ())
    sources = Sources(prompt, prompt_file, file or (), fim_prefix, fim_suffix, messages, chosen, variables, quiet)
    asked, other = sources.prompts(frame)
    if earlier is not None:
        asked, other = earlier.before(asked), earlier.before(other)
    notes = Notes(quiet=quiet)
    job = Job(
        prompt=asked,
        other=other,
        name=model or "",
        samplers=make_samplers(asked_for, samples),
        max_tokens=asked_for.max_tokens,
        started=STARTED,
        stop=list(asked_for.stop),
        n_logprobs=logprobs,
        as_json=as_json,
        as_jsonl=as_jsonl,
        extract=extract or (chosen is not None and chosen.extract),
        stream=stream,
        stats=stats,
        fail_on_length=fail_on_length,
        reasoning=reasoning,
        constraint=bound,
        draft=asked_for.draft,
        n_parallel=parallel,
        kept=kept_prompts(notes, cache_limit) if cache else None,
    )
    same = None if shared.is_given(context, "model") else earlier
    model = same.model if same is not None else shared.chosen_model(model, notes)
    use_machine(device, threads, notes, exact=exact)
    path = same.path() if same is not None else registry.resolve(model)
    options = CacheOptions(window, sinks, kv_bits)
    opened, tokenizer = open_model(path, notes, cache=options, ignore_memory=ignore_memory, pipeline=pipeline)
    drafter = open_drafter(draft_model, tokenizer, notes, draft=asked_for.draft, ignore_memory=ignore_memory)
    if save and samples == 1:
        job = replace(job, keep=last_completion.keeper(asked, model, path, notes.say))
    job = job.with_system(lambda text: system_of(text, path, tokenizer, asked.template))
    job = replace(job, name=model, drafter=drafter)
    command.run(job, opened, tokenizer, notes)


def answer_options(
    context: typer.Context, sampling: Mapping[str, object], template: Mapping[str, object]
) -> AnswerKnobs:
    """Return the options of an answer: what was typed, then what a template sets, then the defaults."""
    plain = {**sampling, **{key: context.params[key] for key in ("max_tokens", "stop", "draft")}}
    plain["reasoning_effort"] = context.params["reasoning_effort"] or ""
    plain |= {key: value for key, value in template.items() if not shared.is_given(context, key)}
    return AnswerKnobs(**from_plain(AnswerKnobs, plain))

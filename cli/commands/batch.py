"""The options of ``batch``; heavy imports are inside."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import constraint, shared
from mistral_mlx.cli.options.sampling import with_sampling
from mistral_mlx.cli.terminal.notes import Notes
from mistral_mlx.cli.terminal.reading import read_file, read_stdin

from .complete import answer_options


@with_sampling
def batch(
    context: typer.Context,
    source: Annotated[
        Path, typer.Argument(metavar="FILE", help="The prompts, one JSON value per line; - is standard input.")
    ],
    model: shared.Model = None,
    output: Annotated[
        Path | None,
        shared.output_option(
            "--output",
            "-o",
            metavar="FILE",
            help="Append the results to this file; continue where an earlier run ended.",
        ),
    ] = None,
    raw: Annotated[
        bool, shared.prompt_option("--raw", help="Continue the texts as they are, without a chat format.")
    ] = False,
    system: shared.System = None,
    template: shared.Template = None,
    schema: constraint.Schema = None,
    schema_multi: constraint.SchemaMulti = False,
    schema_prompt: constraint.SchemaPrompt = True,
    regex: constraint.Regex = None,
    grammar: constraint.Grammar = None,
    reasoning_effort: shared.ReasoningEffort = None,
    max_tokens: shared.MaxTokens = shared.MAX_TOKENS,
    stop: shared.Stop = None,
    quiet: shared.Quiet = False,
    device: shared.Device = "auto",
    threads: shared.Threads = 0,
    draft: shared.Draft = shared.DRAFT,
    parallel: shared.Parallel = 0,
    exact: shared.Exact = False,
    kv_bits: shared.KvBits = shared.KV_BITS,
    window: shared.Window = None,
    sinks: shared.Sinks = shared.SINKS,
    pipeline: shared.Pipeline = False,
    ignore_memory: shared.IgnoreMemory = False,
    **sampling: Any,
) -> None:
    """Answer many prompts as JSON lines in their order.

    Some are answered at the same time. A line of the input is a text, a list of messages, or an object with prompt or
    messages, and with id, system, prefill, tools, schema or any option of sampling of its own.
    """
    from mistral_mlx.cli.answers import batch as command
    from mistral_mlx.cli.answers.constraints import Wanted
    from mistral_mlx.cli.models.opening import check_parallel, open_model, parallel_for_memory, use_machine
    from mistral_mlx.model.cache_options import CacheOptions
    from mistral_mlx.prompt.official import system_of

    notes = Notes(quiet=quiet)
    check_parallel(parallel)
    defaults = command.Defaults(
        answer_options(context, sampling, {}),
        system=system,
        template=template,
        raw=raw,
        wanted=Wanted(schema, schema_multi, regex, grammar),
        schema_prompt=schema_prompt,
    )
    tasks = command.read_tasks(read_stdin() if str(source) == "-" else read_file(source, "file of prompts"))
    model = shared.chosen_model(model, notes)
    with command.Results(output, tasks, model) as results:
        if results.remaining:
            use_machine(device, threads, notes, exact=exact)
            path = registry.resolve(model)
            opened, tokenizer = open_model(
                path,
                notes,
                cache=CacheOptions(window, sinks, kv_bits),
                ignore_memory=ignore_memory,
                pipeline=pipeline,
            )
            meaning = partial(system_of, path=path, tokenizer=tokenizer, template=template)
            defaults = replace(defaults, system=meaning(system), meaning=meaning)
            n_tokens = results.most_tokens(defaults.options.max_tokens)
            n = parallel_for_memory(parallel, opened, n_tokens)
            command.run(results, defaults, opened, tokenizer, notes, n_parallel=n)
        command.leave(results, notes)

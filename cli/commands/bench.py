"""The options of ``bench``; heavy imports are inside."""

import typer

from mistral_mlx.cli.models import registry
from mistral_mlx.cli.options import shared
from mistral_mlx.cli.terminal.notes import Notes

EXAMPLES = "mistral-mlx bench demo -p 512 -n 128 --depth 4096"


def bench(
    context: typer.Context,
    name: shared.ModelName = None,
    model: shared.Model = None,
    n_prompt: shared.NPrompt = shared.N_PROMPT,
    n_gen: shared.NGen = shared.N_GEN,
    depth: shared.Depth = shared.DEPTH,
    repeats: shared.Repeats = shared.REPEATS,
    as_json: shared.Json = False,
    quiet: shared.Quiet = False,
    device: shared.Device = "auto",
    threads: shared.Threads = 0,
    exact: shared.Exact = False,
    kv_bits: shared.KvBits = shared.KV_BITS,
    window: shared.Window = None,
    sinks: shared.Sinks = shared.SINKS,
    pipeline: shared.Pipeline = False,
    ignore_memory: shared.IgnoreMemory = False,
) -> None:
    """Measure how fast a model reads and writes here."""
    from mistral_mlx.cli.models.opening import use_machine
    from mistral_mlx.cli.reports import bench as command
    from mistral_mlx.measure.benchmark import Workload
    from mistral_mlx.model.cache_options import CacheOptions

    workload = Workload(n_prompt=n_prompt, n_gen=n_gen, depth=depth, repeats=repeats)
    notes = Notes(quiet=quiet)
    model = shared.chosen_model(shared.named_model(context, name, model), notes)
    use_machine(device, threads, notes, exact=exact)
    cache = CacheOptions(window, sinks, kv_bits)
    path = registry.resolve(model)
    measurement = command.run(path, workload, cache, notes, ignore_memory=ignore_memory, pipeline=pipeline)
    command.show(model, workload, measurement, cache=cache, as_json=as_json)

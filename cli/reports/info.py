"""``info``: describes a model folder and the memory that it needs, from headers alone."""

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

from mistral_mlx import kernels
from mistral_mlx.cli.models.opening import CHAT_TOKENS
from mistral_mlx.cli.terminal.streams import write_text
from mistral_mlx.cli.terminal.table import facts, gigabytes, print_json
from mistral_mlx.errors import TokenizerError, counted
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.kernels.memory import available_memory
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.blocks import EXPERTS
from mistral_mlx.model.cache import cache_nbytes
from mistral_mlx.model.cache_options import KV_BITS, CacheOptions
from mistral_mlx.model.loading import cache_itemsize, inspect_model, memory_needed, remarks
from mistral_mlx.prompt.encode import chat_format
from mistral_mlx.tokenizer.choose import Tokenizer, load_tokenizer

EXAMPLE_WINDOW, EXAMPLE_SINKS = 4096, 4  # of a model that has no window


def describe(path: Path) -> dict[str, object]:
    """Return the facts about the model folder at `path` by name; sizes are in bytes."""
    inspected = inspect_model(ModelFolder(path))
    args, entries = inspected.args, inspected.entries
    tied = "lm_head.weight" not in entries
    sizes = {name: math.prod(shape) for name, shape in expected_shapes(args).items() if name in entries}
    parameters = sum(sizes.values())
    nbytes = sum(entry.nbytes for entry in entries.values())
    windows = [w for w in args.sliding_window if w is not None]
    at_limit = args.max_position_embeddings
    itemsize = cache_itemsize(entries)
    return {
        "path": str(path),
        "model_type": args.model_type,
        "layers": args.n_layers,
        "dim": args.dim,
        "hidden_dim": args.hidden_dim,
        "heads": args.n_heads,
        "kv_heads": args.n_kv_heads,
        "head_dim": args.head_dim,
        "vocab_size": args.vocab_size,
        "rope_theta": args.rope_theta,
        "rope_scaling": _scaling(args),
        "query_scale": args.query_scale._asdict() if args.query_scale else None,
        "experts": args.n_experts,
        "experts_per_token": args.n_experts_per_token,
        "tied_head": tied,
        "parameters": parameters,
        "active_parameters": _active(sizes, args),
        "weight_bytes": nbytes,
        "bits_per_weight": round(8 * nbytes / parameters, 3),
        "quantization": _quantization(args),
        "dtypes": dict(Counter(entry.dtype for entry in entries.values())),
        "sliding_window": list(args.sliding_window),
        "context": at_limit,
        "kv_bytes_at_window": cache_nbytes(args, max(windows), itemsize=itemsize) if windows else None,
        "kv_bytes_at_context": cache_nbytes(args, at_limit, itemsize=itemsize),
        "kv_bytes_by_choice": _kv_choices(args, itemsize),
        "memory_needed": memory_needed(inspected, CHAT_TOKENS),
        "memory_available": available_memory(),
        "tokenizer": _tokenizer(inspected.folder),
        "kernels": kernels.names(),
        "remarks": remarks(inspected),
    }


def _kv_choices(args: ModelArgs, itemsize: int) -> list[dict[str, object]]:
    """Return the bytes of the cache at the context for each number of bits, and for an example window."""
    windows = [None, EXAMPLE_WINDOW] if (args.context_limit or 0) > EXAMPLE_WINDOW else [None]
    choices = [CacheOptions(window, EXAMPLE_SINKS if window else 0, bits) for window in windows for bits in KV_BITS]
    at = args.max_position_embeddings
    return [asdict(c) | {"bytes": cache_nbytes(c.applied(args), at, itemsize=itemsize)} for c in choices]


def show(found: dict[str, object], *, as_json: bool) -> None:
    """Write the facts to stdout, as JSON or as a table."""
    if as_json:
        print_json(found)
    else:
        write_text(facts(_rows(found)))


def _active(sizes: dict[str, int], args: ModelArgs) -> int:
    """Return how many weights a token uses: of the experts, those that it chooses."""
    of_experts = sum(size for name, size in sizes.items() if EXPERTS in name)
    unused = args.n_experts - args.n_experts_per_token
    return sum(sizes.values()) - (of_experts // args.n_experts * unused if args.n_experts else 0)


def _scaling(args: ModelArgs) -> dict[str, object] | None:
    scaling = args.rope_scaling
    return {"type": type(scaling).__name__.lower(), **asdict(scaling)} if scaling else None


def _quantization(args: ModelArgs) -> dict[str, object] | None:
    if args.quantization is None:
        return None
    q = args.quantization
    return q.usual.as_config() | {"exceptions": {path: packing.as_config() for path, packing in q.per_module.items()}}


def _tokenizer(folder: ModelFolder) -> dict[str, object] | None:
    """Return the facts about the tokenizer, or its error: an error does not end the command."""
    try:
        tokenizer = load_tokenizer(folder)
    except TokenizerError as error:
        return {"error": str(error)}
    return {
        "tokens": tokenizer.vocab_size,
        "version": tokenizer.version,
        "chat_format": _chat_format(tokenizer),
        "bos_id": tokenizer.bos_id,
        "eos_ids": sorted(tokenizer.eos_ids),
    }


def _chat_format(tokenizer: Tokenizer) -> str | None:
    if not tokenizer.has_chat_format:
        return None
    version = chat_format(tokenizer)
    return f"Mistral instruct {version}" if version else "chat template"


def _rows(found: dict[str, object]) -> list[tuple[str, str]]:
    f = found
    return [
        ("model", f"{f['path']} ({f['model_type']})"),
        (
            "layers",
            f"{f['layers']}, dim {f['dim']}, feed-forward {f['hidden_dim']}, "
            f"{'tied' if f['tied_head'] else 'own'} head",
        ),
        *_experts(f),
        ("attention", f"{f['heads']} query heads share {f['kv_heads']} key/value heads of {f['head_dim']}"),
        ("window", _window_text(f)),
        ("context", f"{f['context']:,} positions trained ({_rope_text(f)})"),
        (
            "weights",
            f"{f['parameters']:,} in {_gb(f['weight_bytes'])}, {f['bits_per_weight']:.2f} bits per weight "
            f"({_stored(f)})",
        ),
        ("KV cache", _cache_text(f)),
        *(("", line) for line in _choice_lines(f)),
        (
            "memory",
            f"{_gb(f['memory_needed'])} for weights and {CHAT_TOKENS:,} tokens, {_gb(f['memory_available'])} available",
        ),
        ("tokenizer", _tokenizer_text(f["tokenizer"])),
        ("kernels", str(f["kernels"])),
        *(("remark", str(remark)) for remark in _list(f["remarks"])),
    ]


def _experts(found: dict[str, object]) -> list[tuple[str, str]]:
    """Return the row of a mixture of experts; none if there is a single feed-forward."""
    if not found["experts"]:
        return []
    used, total = found["experts_per_token"], found["experts"]
    return [("experts", f"each token uses {used} of {total}, and {found['active_parameters']:,} of the weights")]


def _list(value: object) -> list[object]:
    assert isinstance(value, list)
    return value


def _rope_text(found: dict[str, object]) -> str:
    scaling, scale = found["rope_scaling"], found["query_scale"]
    parts = [f"rope_theta {found['rope_theta']:g}"]
    if isinstance(scaling, dict):
        name = {"yarn": "YaRN", "llama3": "Llama 3 scaling"}[scaling["type"]]
        parts.append(f"{name}, {scaling['factor']:g} times {scaling['original']:,}")
    if isinstance(scale, dict):
        parts.append(f"queries scaled from {scale['original']:,} on")
    return ", ".join(parts)


def _window_text(found: dict[str, object]) -> str:
    windows = found["sliding_window"]
    assert isinstance(windows, list)
    kinds = Counter(windows)
    if set(kinds) == {None}:
        return "none: every token sees all before it; the cache grows up to the context"
    parts = [_layers(n) + (f" the last {w:,} tokens" if w else " everything") for w, n in kinds.items()]
    return "; ".join(parts) + "; the cache of a windowed layer stops growing there"


def _layers(n: int) -> str:
    return counted(n, "layer") + (" sees" if n == 1 else " see")


def _cache_text(found: dict[str, object]) -> str:
    at_context = f"{_gb(found['kv_bytes_at_context'])} at {found['context']:,} tokens"
    window = found["kv_bytes_at_window"]
    return at_context if window is None else f"{_gb(window)} at the window, {at_context}"


def _choice_lines(found: dict[str, object]) -> Iterator[str]:
    """Yield a line for each choice of the cache but the first one, which is the default."""
    for choice in _list(found["kv_bytes_by_choice"])[1:]:
        assert isinstance(choice, dict)
        flags = [f"--window {choice['window']} --sinks {choice['sinks']}"] if choice["window"] else []
        flags += ["--kv-bits 8"] if choice["kv_bits"] == 8 else []
        yield f"{_gb(choice['bytes'])} there with {' '.join(flags)}"


def _stored(found: dict[str, object]) -> str:
    quantization = found["quantization"]
    if not isinstance(quantization, dict):
        dtypes = found["dtypes"]
        assert isinstance(dtypes, dict)
        return ", ".join(dtypes)
    exceptions = len(quantization["exceptions"])
    also = f", {counted(exceptions, 'module')} otherwise" if exceptions else ""
    return f"{quantization['mode']} {quantization['bits']}-bit, group {quantization['group_size']}{also}"


def _tokenizer_text(tokenizer: object) -> str:
    assert isinstance(tokenizer, dict)
    if "error" in tokenizer:
        return f"none usable: {tokenizer['error']}"
    version = f"Mistral {tokenizer['version']}, " if tokenizer["version"] else ""
    return (
        f"{version}{tokenizer['tokens']:,} tokens; chat format: {tokenizer['chat_format'] or 'none, text is continued'}"
    )


def _gb(nbytes: object) -> str:
    assert nbytes is None or isinstance(nbytes, int)
    return "unknown" if nbytes is None else gigabytes(nbytes)

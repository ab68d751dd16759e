"""Writes the tables of docs/models.md: python tests/published/models_page.py

`checkpoints.json` has the configs of Mistral AI's checkpoints, some also as they were before a correction ("early").
What the tables say of them is what the engine and the converter say: whether they are read, converted or refused, their
layers, windows, sizes, and remarks.
"""

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from mistral_mlx.convert.sources.support import TENSOR, Support, of_huggingface, of_native
from mistral_mlx.convert.sources.text_model import text_config
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.blocks import EXPERTS
from mistral_mlx.model.cache import cache_nbytes
from mistral_mlx.model.known import remarks

CHECKPOINTS = Path(__file__).with_name("checkpoints.json")
PAGE = Path(__file__).parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- begin: written by tests/published/models_page.py -->\n", "<!-- end -->\n"
FP8 = {"quantization_config": {"quant_method": "fp8", "activation_scheme": "static", "weight_block_size": None}}
BITS, GROUP_SIZE = 4, 64
N_TOKENS = 4096  # the conversation that is counted
MEMORIES = (8, 16, 24, 32, 48, 64, 96, 128, 192)  # GiB
SHARE = 2 / 3  # of the memory: the rest is for the system and other programs
PICKS = {  # what to take, by the memory of the computer
    8: {"Ministral 3 8B 2512": "", "Ministral 3 3B 2512": "is faster, and leaves more memory for other programs"},
    16: {"Ministral 3 14B 2512": "", "Mistral Nemo 12B 2407": "has no vision tower to leave out"},
    32: {
        "Mistral Small 3.2 24B 2506": "",
        "Devstral Small 2 24B 2512": "for programming",
        "Magistral Small 24B 2509": "thinks before it answers",
    },
}


def checkpoints() -> list[dict[str, object]]:
    """Return the checkpoints as `checkpoints.json` has them."""
    return json.loads(CHECKPOINTS.read_text("utf-8"))


def forms(checkpoint: dict[str, object]) -> dict[str, Support]:
    """Return what the program says of each form in which a checkpoint was published."""
    tensors, config = [checkpoint.get("tensor", TENSOR)], checkpoint.get("config")
    found = {}
    for weights in checkpoint.get("weights", ["plain"]) if config else []:
        found[weights] = of_huggingface(config | (FP8 if weights == "fp8" else {}), tensors)
    return found | ({"own": of_native(checkpoint["params"])} if "params" in checkpoint else {})


def parameters(args: ModelArgs) -> tuple[int, int]:
    """Return how many weights there are, and how many of them a token uses."""
    shapes = expected_shapes(args)
    if args.tie_word_embeddings:
        del shapes["lm_head.weight"]
    sizes = {name: math.prod(shape) for name, shape in shapes.items()}
    of_experts = sum(size for name, size in sizes.items() if EXPERTS in name)
    total = sum(sizes.values())
    idle = of_experts * (args.n_experts - args.n_experts_per_token) // args.n_experts if of_experts else 0
    return total, total - idle


def weight_nbytes(args: ModelArgs) -> float:
    """Return the bytes of the weights at 4 bits in groups of 64, with a scale and a bias of 16 bits each."""
    return parameters(args)[0] * (BITS + 32 / GROUP_SIZE) / 8


def memory_nbytes(args: ModelArgs) -> float:
    """Return the bytes of these weights and of the cache of a conversation."""
    return weight_nbytes(args) + cache_nbytes(args, N_TOKENS, itemsize=2)


def tables() -> str:
    """Return the part of the page that is written here."""
    known = {str(checkpoint["name"]): checkpoint for checkpoint in checkpoints()}
    found = {name: forms(checkpoint) for name, checkpoint in known.items()}
    running = {name: of for name, of in found.items() if any(form.args for form in of.values())}
    lines = ["", "### What to take", "", *_picks(running), "", "### Models that run", ""]
    lines += ["| checkpoint | Hugging Face's files | Mistral's own files | layers | window | context | tokenizer |"]
    lines[-1] += " parameters | 4 bits | memory |"
    lines += ["|" + "---|" * 10, *(_row(known[name], of) for name, of in running.items()), ""]
    lines += ["When it loads or converts some copies, the program says what is wrong with them:", ""]
    lines += _remarks(known, running)
    lines += ["", "### Models that are refused", "", "| checkpoint | what the program says |", "|---|---|"]
    lines += [f"| {_name(known[name])} | {_why(of)} |" for name, of in found.items() if name not in running]
    return "\n".join(lines) + "\n\n"


def render(page: str) -> str:
    """Return `page` with new tables between its marks."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}{tables()}{END}{after}"


def _row(checkpoint: dict[str, object], found: dict[str, Support]) -> str:
    args = next(form.args for form in found.values() if form.args)
    own = found["own"].args if "own" in found else None
    total, active = parameters(args)
    billions = f"{total / 1e9:.1f} B" + (f", {active / 1e9:.1f} B for a token" if active < total else "")
    window, context = _window(args), f"{args.max_position_embeddings:,}"
    if own and _window(own) != window:
        window += f"; own files: {_window(own)}"
    if own and own.max_position_embeddings != args.max_position_embeddings:
        context += f"; own files: {own.max_position_embeddings:,}"
    if own and not any(key in checkpoint["params"] for key in ("max_position_embeddings", "max_seq_len")):
        context += " assumed" if own is args or "own files" in context else ""
    memory = next((f"{n} GB" for n in MEMORIES if _fits(args, n)), "")
    gigabytes = f"{weight_nbytes(args) / 1e9:.1f} GB"
    cells = [_name(checkpoint), _huggingface(found), found["own"].verdict if "own" in found else "–"]
    cells += [str(args.n_layers), window, context, str(checkpoint["tokenizer"]), billions, gigabytes, memory]
    return "| " + " | ".join(cells) + " |"


def _name(checkpoint: dict[str, object]) -> str:
    return str(checkpoint["name"]) + (" *" if checkpoint["seen"] == "card" else "")


def _huggingface(found: dict[str, Support]) -> str:
    parts = [found["plain"].verdict] if "plain" in found else []
    parts += [f"FP8: {found['fp8'].verdict}"] if "fp8" in found else []
    return "; ".join(parts) or "–"


def _window(args: ModelArgs) -> str:
    kinds = Counter(args.sliding_window)
    texts = [f"{w:,}" + ("" if n == args.n_layers else f" in {n} layers") for w, n in kinds.items() if w]
    return ", ".join(texts) or "none"


def _remarks(known: dict[str, dict[str, object]], found: dict[str, dict[str, Support]]) -> Iterator[str]:
    for name, of in found.items():
        copies = [form.args for form in of.values() if form.args]
        if "early" in known[name]:
            copies.append(ModelArgs.from_config(text_config(known[name]["early"])))
        said = {remark for args in copies for remark in remarks(args)}
        yield from (f"- {name}: {remark}." for remark in sorted(said))


def _why(found: dict[str, Support]) -> str:
    return "; ".join(form.why for form in found.values())


def _fits(args: ModelArgs, memory: int) -> bool:
    return memory_nbytes(args) <= SHARE * memory * 2**30


def _picks(found: dict[str, dict[str, Support]]) -> Iterator[str]:
    yield from ["| memory | model | needs at 4 bits | |", "|---|---|---|---|"]
    for memory, models in PICKS.items():
        for model, reason in models.items():
            of = next(of for name, of in found.items() if name.startswith(model))
            args = next(form.args for form in of.values() if form.args)
            assert _fits(args, memory), f"{model} does not fit into {memory} GB"
            yield f"| {memory} GB | {model} | {memory_nbytes(args) / 1e9:.1f} GB | {reason} |"


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text("utf-8")), "utf-8")

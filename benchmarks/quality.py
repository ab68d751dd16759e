"""Measures the cost of quantizing at true bits per weight: ours, mlx-lm's, llama.cpp's.

    python benchmarks/quality.py FOLDER --text TEXT --calibrate OTHER_TEXT [--plot FILE.svg]

FOLDER is a plain float32 model (stories15m.py and README.md say how to make two). Every quantized model is compared
with the unquantized one in the same program, on the same windows of token ids, of which the second half is scored, as
llama-perplexity does. Bits per weight count all that the file holds for a weight, scales included.
"""

import argparse
import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import FOLDER, figure, parser, progress
from report import finish, machine

from mistral_mlx.convert import convert
from mistral_mlx.convert.export.gguf_export import export_gguf
from mistral_mlx.measure.evaluation import Window, evaluate, model_logits, windows
from mistral_mlx.model.loading import load, load_model

LLAMA_KINDS = ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_1", "Q4_0", "Q3_K_M")
Row = dict[str, Any]


def ours(calibrate: Path, sizes: list[float]) -> dict[tuple[str, str], dict[str, Any]]:
    """Return the options of `convert` for each row, by family and name; `sizes` are bits per weight to aim at."""
    plain: dict[str, dict[str, Any]] = {
        "8 bits, groups of 64": {"bits": 8},
        "6 bits, groups of 64": {"bits": 6},
        "5 bits, groups of 64": {"bits": 5},
        "4 bits, groups of 32": {"bits": 4, "group_size": 32},
        "4 bits, groups of 64": {"bits": 4},
        "3 bits, groups of 64": {"bits": 3},
    }
    text = {"calibrate": calibrate}
    rows = {("MLX", name): options for name, options in plain.items()}
    rows |= {
        ("mlx-lm's recipes", name): {"recipe": name} for name in ("mixed_4_6", "mixed_3_6", "mixed_3_4", "mixed_2_6")
    }
    rows |= {("ours, no text", f"--target-bpw {size:g}"): {"target_bpw": size, "method": "search"} for size in sizes}
    rows |= {("ours", f"--target-bpw {size:g}"): {"target_bpw": size, **text} for size in sizes}
    return rows | {("ours", "--bits 8"): {"bits": 8, **text}, ("ours", "--bits 4"): {"bits": 4, **text}}


def main() -> None:
    """Measure and report."""
    options = _options()
    described = machine(options)
    model, tokenizer = load(options.folder)
    ids = tokenizer.encode(options.text.read_text("utf-8"))
    cut = windows(ids, context=options.context, bos_id=tokenizer.bos_id, limit=options.windows)
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        rows = [*_ours(options, cut, Path(work)), *_theirs(options, cut, Path(work))]
    reference = evaluate(cut, model_logits(model))
    record = {
        "model": options.folder.name,
        "parameters": rows[0].pop("parameters"),
        "n_windows": len(cut),
        "n_tokens": reference.n_tokens,
        "perplexity": figure(reference.perplexity.value),
        "rows": sorted(rows, key=lambda row: -row["bits_per_weight"]),
    }
    if options.plot:
        from quality_plot import draw

        draw(record, options.plot)
    _print_table(record["rows"])
    finish("quality", {key: value for key, value in record.items() if key != "rows"}, described, options)
    print(json.dumps(record["rows"]))


def _options() -> argparse.Namespace:
    options = parser("What each way of quantizing costs, at its true bits per weight.")
    options.add_argument("folder", type=Path, help="a plain model folder")
    options.add_argument("--text", type=Path, required=True, help="what is measured on")
    options.add_argument("--calibrate", type=Path, required=True, help="another text, to calibrate on")
    options.add_argument("--context", type=int, default=512, help="tokens of a window")
    options.add_argument("--windows", type=int, default=40, help="at most")
    options.add_argument("--sizes", type=float, nargs="+", default=[4.5, 5, 5.5, 6.5], help="bits per weight to aim at")
    options.add_argument("--plot", type=Path, help="an SVG or PNG file to draw")
    return options.parse_args()


def _ours(options: argparse.Namespace, cut: list[Window], work: Path) -> Iterator[Row]:
    reference = model_logits(load_model(options.folder))
    for (family, name), wanted in ours(options.calibrate, options.sizes).items():
        report = convert(options.folder, work / "target", overwrite=True, dtype="float16", **wanted)
        found = evaluate(cut, model_logits(load_model(work / "target")), reference)
        assert found.comparison is not None
        row = {
            "family": family,
            "name": name,
            "bits_per_weight": report.bits_per_weight,
            "perplexity": found.perplexity.value,
            "perplexity_ratio": found.comparison.perplexity_ratio.value,
            "mean_kl": found.comparison.kl.value,
            "kl_error": found.comparison.kl.error,
            "p99_kl": found.comparison.kl_percentiles["99"],
            "same_top": found.comparison.same_top.value,
            "seconds": report.seconds,
        }
        progress(_line(row))
        yield {**row, "parameters": report.parameters}


def _theirs(options: argparse.Namespace, cut: list[Window], work: Path) -> Iterator[Row]:
    source = work / "source.gguf"
    export_gguf(options.folder, source, outtype="f32")
    task = {
        "windows": [window.ids for window in cut],
        "first": cut[0].first,
        "context": len(cut[0].ids),
        "threads": options.threads,
    }
    command = [options.llama_python, str(FOLDER / "quality_llama.py"), str(source), *LLAMA_KINDS]
    done = subprocess.run(command, input=json.dumps(task), stdout=subprocess.PIPE, text=True, check=True)
    base, *rows = [json.loads(line) for line in done.stdout.splitlines()]
    for row in rows:
        row = {"family": "llama.cpp", "name": row.pop("kind"), **row}
        row["perplexity_ratio"] = row["perplexity"] / base["perplexity"]
        progress(_line(row))
        yield row


def _print_table(rows: list[Row]) -> None:
    print(f"{'':44}{'bits/weight':>12}{'mean KL':>10}{'±':>9}{'99 %':>9}{'perplexity':>12}{'same top':>10}")
    for row in rows:
        print(_line(row))


def _line(row: Row) -> str:
    return (
        f"{row['family'] + ': ' + row['name']:44}{row['bits_per_weight']:12.3f}{row['mean_kl']:10.5f}"
        f"{row['kl_error']:9.5f}{row['p99_kl']:9.4f}{100 * (row['perplexity_ratio'] - 1):+11.2f}%"
        f"{100 * row['same_top']:9.2f}%"
    )


if __name__ == "__main__":
    main()

"""Plots the results of quality.py: mean divergence over bits per weight, a line per family."""

from pathlib import Path
from typing import Any

MARKS = {"ours": "o", "ours, no text": "d", "MLX": "s", "mlx-lm's recipes": "^", "llama.cpp": "x"}
NAMED = ("ours", "llama.cpp")


def draw(record: dict[str, Any], path: Path) -> None:
    """Write the plot of a record to `path`."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.fonttype": "none", "svg.hashsalt": "quality"}  # small, and the same every time
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5))
    for family, mark in MARKS.items():
        rows = sorted((row for row in record["rows"] if row["family"] == family), key=lambda r: r["bits_per_weight"])
        if rows:
            across, up = zip(*((row["bits_per_weight"], row["mean_kl"]) for row in rows), strict=True)
            axes.plot(across, up, marker=mark, label=family, linewidth=1 if family in NAMED else 0)
        if family in NAMED:
            for row in rows:
                place = row["bits_per_weight"], row["mean_kl"]
                axes.annotate(row["name"], place, fontsize=7, xytext=(4, 4), textcoords="offset points")
    axes.set_yscale("log")
    axes.set_xlabel("bits per weight, scales included")
    axes.set_ylabel("mean KL divergence from the unquantized model, nats")
    axes.set_title(f"{record['model']}: what quantizing costs (lower is better)", fontsize=10)
    axes.grid(visible=True, which="both", alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)

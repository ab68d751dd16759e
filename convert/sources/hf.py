"""A Hugging Face folder of safetensors as a checkpoint: config.json and model*.safetensors."""

from collections.abc import Iterator, Mapping

from mistral_mlx.errors import ConversionError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import TensorEntry, consolidated_files, find_tensors
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.wrappers import text_part

from . import fp8, mlx
from .entries import plain_tensor
from .experts import apart, joined
from .gptq import METHODS, grouped_tensors
from .source import Source, SourceTensor
from .text_model import text_config, text_entries
from .tokenizer_files import find_files, largest_vocabulary

# Keys that make other programs run code from the folder; they never enter the target.
CODE_KEYS = ("auto_map", "model_file")
RULE_KEYS = ("quantization", "quantization_config")  # how the source is packed; the target has its own


def open_folder(folder: ModelFolder) -> Source:
    """Open the Hugging Face checkpoint in `folder`.

    Raises ModelError if it is damaged, and ConversionError if it is quantized in a way that is not supported.
    """
    found = find_tensors(folder)
    whole = folder.json("config.json")
    notes = list(_notes(folder, whole))
    entries = text_entries(found, notes)
    config = text_config(harmless(whole))
    args = ModelArgs.from_config(config)
    rules = whole if any(map(whole.get, RULE_KEYS)) else text_part(whole)
    tensors = _tensors(rules, apart(entries, args), notes)
    files = find_files(folder)
    return Source(
        path=folder.path,
        config=config,
        args=args,
        tensors=joined(tensors, args),
        files=files,
        tokenizer_ids=largest_vocabulary(files),
        notes=tuple(notes),
    )


def harmless(config: Mapping[str, object]) -> dict[str, object]:
    """Return `config`, and that of a text model in it, without the keys that never enter the target."""
    kept = {key: value for key, value in config.items() if key not in (*CODE_KEYS, *RULE_KEYS)}
    inner = kept.get("text_config")
    return kept | {"text_config": harmless(inner)} if isinstance(inner, Mapping) else kept


def _tensors(
    config: Mapping[str, object], entries: Mapping[str, TensorEntry], notes: list[str]
) -> dict[str, SourceTensor]:
    key = "quantization" if config.get("quantization") else "quantization_config"
    rule = config.get(key)
    if isinstance(rule, Mapping) and "quant_method" in rule:
        if rule["quant_method"] in ("fp8", "compressed-tensors"):
            return fp8.scaled_tensors(entries, fp8.block_shape(rule, f"config.json: {key}"), notes)
        if rule["quant_method"] in METHODS:
            return grouped_tensors(entries, rule, notes)
        raise ConversionError(
            f"the source is quantized by {shown(rule['quant_method'])}; convert the original weights instead, "
            "in float16, bfloat16 or float32"
        )
    if mlx.is_packed(config, entries):
        return mlx.packed_tensors(config, entries)
    return {name: plain_tensor(entry, name) for name, entry in entries.items()}


def _notes(folder: ModelFolder, config: Mapping[str, object]) -> Iterator[str]:
    if names := consolidated_files(folder):
        yield f"both layouts are present: the Hugging Face files are converted, {shown(names[0])} is left out"
    if any(p.suffix == ".gguf" for p in folder.path.iterdir()):
        yield "the folder holds a GGUF file too: the safetensors are converted"
    for key in CODE_KEYS:
        if key in config:
            yield f"{key} in config.json is left out: code from a model folder is never run"

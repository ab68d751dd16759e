"""Which files of a model are fetched: those that the program reads. Code and pickles are never among them."""

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from mistral_mlx.errors import ConversionError, OptionError, counted, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import INDEX_NAME, SINGLE_NAME, weight_map

from .repository import RemoteFile

SMALL = re.compile(
    r"(config|params|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|tekken|"
    r"chat_template|adapter_config)\.json|.+\.safetensors\.index\.json|tokenizer\.model(\.v\w+)?|merges\.txt|"
    r"SYSTEM_PROMPT\.txt|[\w-]+\.jinja|(README|LICENSE|LICENCE|NOTICE)[\w.-]*"
)
ABOUT = re.compile(r"(README|LICENSE|LICENCE|NOTICE)", re.ASCII)
WEIGHTS = re.compile(r".+\.(safetensors|gguf)")
CODE = re.compile(r".+\.(py|ipynb|sh|so|pkl|pickle|bin|pt|pth|ckpt|npz|h5)", re.IGNORECASE)
MISTRALS_OWN = re.compile(r"consolidated(-\d+-of-\d+|\.\d+)?\.safetensors", re.ASCII)
MAX_SMALL_FILES, MAX_SMALL_BYTES = 64, 1 << 28


def small_files(files: Iterable[RemoteFile], include: Sequence[str], exclude: Sequence[str]) -> list[RemoteFile]:
    """Return the files beside the weights: config, tokenizer, index, licence.

    Raises ConversionError if they are more than is plausible.
    """
    small = [f for f in files if SMALL.fullmatch(f.name) and not CODE.fullmatch(f.name)]
    chosen = _filtered(small, include, exclude)
    if len(chosen) > MAX_SMALL_FILES or sum(f.nbytes for f in chosen) > MAX_SMALL_BYTES:
        raise ConversionError(f"the model has {len(chosen):,} files beside its weights, which is not plausible")
    return chosen


def weight_files(
    files: Sequence[RemoteFile], folder: ModelFolder, include: Sequence[str], exclude: Sequence[str]
) -> list[RemoteFile]:
    """Return the files of weights: those of one layout, Hugging Face's if it is whole, or what `include` names.

    `folder` has the small files, with the index. Raises ConversionError if there are none.
    """
    weights = [f for f in files if WEIGHTS.fullmatch(f.name)]
    chosen = weights if include else _of_one_layout(weights, folder)
    chosen = _filtered(chosen, include, exclude)
    if not chosen:
        raise ConversionError(_nothing(files, include, exclude))
    return chosen


def _filtered(files: list[RemoteFile], include: Sequence[str], exclude: Sequence[str]) -> list[RemoteFile]:
    return [f for f in files if (not include or _matches(f, include)) and not _matches(f, exclude)]


def _matches(file: RemoteFile, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(file.name, pattern) for pattern in patterns)


def _of_one_layout(weights: list[RemoteFile], folder: ModelFolder) -> list[RemoteFile]:
    if folder.has(INDEX_NAME) and folder.has("config.json"):
        named = set(map(str, weight_map(folder).values()))
        if missing := sorted(named - {f.name for f in weights}):
            raise ConversionError(
                f"the index names {counted(len(named), 'file')} of weights, and {shown(missing[0])} is not on the hub"
            )
        return [f for f in weights if f.name in named]
    if folder.has("config.json") and (own := [f for f in weights if f.name == SINGLE_NAME]):
        return own
    return [f for f in weights if MISTRALS_OWN.fullmatch(f.name)] if folder.has("params.json") else []


def _nothing(files: Sequence[RemoteFile], include: Sequence[str], exclude: Sequence[str]) -> str:
    if include or exclude:
        names = [f.name for f in files if WEIGHTS.fullmatch(f.name)]
        listed = ", ".join(map(shown, names[:8])) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
        return f"--include and --exclude leave no file of weights; the model has {listed or 'none'}"
    ggufs = [f.name for f in files if f.name.endswith(".gguf")]
    if ggufs:
        return (
            f"the model has {counted(len(ggufs), 'GGUF file')} and no safetensors; choose one with --include, such as "
            f"--include '{shown(ggufs[0])}'"
        )
    pickles = [f.name for f in files if CODE.fullmatch(f.name)]
    why = f"; {shown(pickles[0])} is a pickle, which can run code and is never read" if pickles else ""
    return f"the model has no weights that this program reads (safetensors or GGUF){why}"


def check_patterns(patterns: Sequence[str], option: str) -> None:
    """Raise OptionError for a pattern that can match no file at the top of a model."""
    for pattern in patterns:
        if not pattern or "/" in pattern:
            raise OptionError(f"{option} is {shown(pattern)}; it must be a file name with * and ?, without a folder")

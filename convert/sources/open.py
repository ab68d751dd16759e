"""Finding a checkpoint and choosing who opens it: a folder of Hugging Face's or Mistral's layout, or a GGUF file."""

from os import PathLike
from pathlib import Path

from mistral_mlx.errors import CheckpointError, ModelError, shown
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.safetensors import INDEX_NAME, SINGLE_NAME

from .hf import open_folder
from .native import is_native, open_native
from .source import Source


def open_source(path: str | PathLike[str]) -> Source:
    """Open the checkpoint at `path`: a folder of safetensors, a GGUF file, or a folder with one GGUF file.

    Raises ModelError if there is none, or it is damaged, already converted, or of a kind that is not supported.
    """
    try:
        return _open(Path(path).expanduser())
    except OSError as error:
        raise ModelError(f"{shown(str(path), limit=200)} cannot be read ({error.strerror or error})") from error


def _open(path: Path) -> Source:
    if path.is_file():
        return _open_file(path)
    folder = ModelFolder(path)
    if folder.has(SINGLE_NAME) or folder.has(INDEX_NAME):
        return open_folder(folder)
    if is_native(folder):
        return open_native(folder)
    ggufs = sorted(p.name for p in path.iterdir() if p.suffix == ".gguf")
    if ggufs:
        return _open_one(folder, ggufs)
    return open_folder(folder)  # which says what is missing


def _open_one(folder: ModelFolder, names: list[str]) -> Source:
    """Open the only GGUF file of those in `folder`; the parts of a split one count once."""
    from mistral_mlx.convert.sources.gguf.split import is_later_part

    whole = [name for name in names if not is_later_part(name)]
    if len(whole) > 1:
        raise CheckpointError(
            f"{shown(str(folder.path))} holds {len(whole)} GGUF files; name one, such as {shown(whole[0])}"
        )
    return _open_file(folder.file((whole or names)[0]))


def _open_file(path: Path) -> Source:
    from mistral_mlx.convert.sources.gguf.source import open_gguf  # the gguf library takes half a second to import

    with path.open("rb") as file:
        if path.suffix != ".gguf" and file.read(4) != b"GGUF":
            raise ModelError(f"{shown(str(path), limit=200)} is neither a model directory nor a GGUF file")
    return open_gguf(path)

"""A text that a conversion is calibrated or verified on, and the tokenizer of its source."""

import tempfile
from codecs import getincrementaldecoder
from pathlib import Path
from shutil import copyfile

from mistral_mlx.convert.files.safetensors_writer import config_bytes
from mistral_mlx.convert.sources.source import Source
from mistral_mlx.errors import OptionError, TokenizerError, shown
from mistral_mlx.tokenizer.choose import Tokenizer, load_tokenizer

MAX_NBYTES = 1024 * 1024  # of a text: 131,072 tokens are the most that is used of one


def read_text(path: Path) -> str:
    """Return the text of the file at `path`, at most its first MAX_NBYTES.

    Raises OptionError if it cannot be read, is no text, or is empty.
    """
    try:
        if path.exists() and not path.is_file():
            raise OptionError(f"the text {shown(str(path), limit=200)} is not a regular file")
        with path.open("rb") as file:
            content = file.read(MAX_NBYTES)
        text = getincrementaldecoder("utf-8-sig")().decode(content, final=len(content) < MAX_NBYTES)
    except OSError as error:
        raise OptionError(
            f"the text {shown(str(path), limit=200)} cannot be read ({error.strerror or error})"
        ) from error
    except UnicodeDecodeError as error:
        raise OptionError(
            f"the text {shown(str(path), limit=200)} is no text in UTF-8 (byte {error.start}); give a plain text file"
        ) from error
    if not text.strip():
        raise OptionError(f"the text {shown(str(path), limit=200)} is empty")
    return text


def source_tokenizer(source: Source) -> Tokenizer:
    """Return the tokenizer that the target will have. Raises ModelError if there is none."""
    if source.tokenizer_ids is None:
        raise TokenizerError("the source has no tokenizer to read a text with")
    with tempfile.TemporaryDirectory(prefix="mistral-mlx-") as name:
        folder = Path(name)
        (folder / "config.json").write_bytes(config_bytes(source.config))
        for file, content in source.files.items():
            if isinstance(content, bytes):
                (folder / file).write_bytes(content)
            else:
                copyfile(content, folder / file)  # a link out of its folder is refused
        return load_tokenizer(folder)

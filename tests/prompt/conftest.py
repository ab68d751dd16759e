"""The tokenizers of each of Mistral's versions."""

import pytest
from helpers.tokenizer_files import MISTRAL, TEKKEN, mistral_folder, tekken_folder
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer

from mistral_mlx import load_tokenizer


@pytest.fixture(scope="module", params=[*MISTRAL, *(f"{version} tekken" for version in TEKKEN)])
def mistral(request, tmp_path_factory):
    """Our tokenizer and mistral-common's of one version."""
    version, _, is_tekken = request.param.partition(" ")
    path = tmp_path_factory.mktemp(version)
    if is_tekken:
        path = tekken_folder(path, 6000, version) / "tekken.json"
        return load_tokenizer(path.parent), MistralTokenizer.from_file(str(path))
    return load_tokenizer(mistral_folder(path, version)), MistralTokenizer.from_file(str(MISTRAL[version]))

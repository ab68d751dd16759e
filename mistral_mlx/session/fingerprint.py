"""Cheap fingerprints of a model and its tokenizer, without reading all weights.

A model's covers its hyper-parameters, the names, dtypes and shapes of its tensors, and the first values of each.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from mistral_mlx.errors import TokenizerError
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache_options import without_choice
from mistral_mlx.model.loading import Inspected
from mistral_mlx.model.mistral import Mistral
from mistral_mlx.model.weights import STORED_DTYPES
from mistral_mlx.prompt.encode import chat_format
from mistral_mlx.tokenizer.choose import Tokenizer

# Fields that sessions of before do not have, and what they were.
LATER = {"rope_scaling": None, "query_scale": None, "n_experts": 0, "n_experts_per_token": 0}
LATER |= {"kv_bits": 16, "sinks": 0, "config_windows": None}  # of every model without a choice
N_SAMPLED = 16  # first values of each tensor
PROBE = (
    "Hello  world, 3.14 naïve 東京 🙂\n\tif (x<=10) return;"  # vocabularies with the same pieces merge this differently
)


@dataclasses.dataclass(frozen=True)
class Fingerprints:
    """Three hexadecimal SHA-256 digests."""

    model: str
    tokenizer: str
    template: str


def fingerprints(model: Mistral, tokenizer: Tokenizer, template: str | None) -> Fingerprints:
    """Return the fingerprints; `template` names a chat format other than the tokenizer's."""
    try:
        version = chat_format(tokenizer, template)
    except TokenizerError:
        version = "none"
    version = "v7" if version in ("v11", "v13") else version  # alike without tools; earlier versions saved v7
    return Fingerprints(
        model=model_fingerprint(model),
        tokenizer=_tokenizer(tokenizer),
        template=_sha256(json.dumps([version, tokenizer.chat_template if version is None else None]).encode()),
    )


def have_same_tokens(a: Tokenizer, b: Tokenizer) -> bool:
    """Return whether two tokenizers have the same ids for the same texts."""
    return _tokenizer(a) == _tokenizer(b)


def folder_fingerprint(folder: Inspected) -> str:
    """Return the fingerprint of the model in a folder without loading it: that of the model that `load_model` returns.

    It is another one only where weights are held in another form than the files have, such as the float modes.
    """
    entries = sorted(folder.entries.items())
    dtypes = [STORED_DTYPES[entry.dtype] for _, entry in entries]
    shapes = [(name, str(dtype), entry.shape) for (name, entry), dtype in zip(entries, dtypes, strict=True)]
    first = [entry.first_bytes(N_SAMPLED * dtype.size) for (_, entry), dtype in zip(entries, dtypes, strict=True)]
    return _digest(folder.args, shapes, b"".join(first))


def model_fingerprint(model: Mistral) -> str:
    """Return the fingerprint of a model alone, a hexadecimal SHA-256 digest."""
    if model.fingerprint is not None:
        return model.fingerprint
    tensors: list[tuple[str, mx.array]] = sorted(dict(tree_flatten(model.parameters())).items())
    shapes = [(name, str(tensor.dtype), tensor.shape) for name, tensor in tensors]
    first = mx.concatenate([tensor.reshape(-1)[:N_SAMPLED].view(mx.uint8) for _, tensor in tensors])
    return _digest(model.args, shapes, np.array(first).tobytes())


def _digest(args: ModelArgs, shapes: Sequence[tuple[str, str, tuple[int, ...]]], first: bytes) -> str:
    known = dataclasses.asdict(without_choice(args))  # a session can be opened with another choice of its cache
    known = {key: value for key, value in known.items() if key not in LATER or value != LATER[key]}
    config = json.dumps([known, shapes], sort_keys=True, default=sorted)  # sets
    return _sha256(config.encode() + first)


def _tokenizer(tokenizer: Tokenizer) -> str:
    stream = tokenizer.detokenizer(continues=True)
    pieces = [stream.add(token_id) for token_id in range(tokenizer.vocab_size)]
    try:
        probed = tokenizer.encode(PROBE)
    except (TokenizerError, ValueError):  # a vocabulary that cannot encode every text
        probed = []
    special = [tokenizer.bos_id, tokenizer.eos_id, sorted(tokenizer.eos_ids), sorted(tokenizer.control.items())]
    return _sha256(json.dumps([pieces, probed, special, tokenizer.add_bos]).encode())


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()

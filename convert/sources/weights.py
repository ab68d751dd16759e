"""The names and shapes a model must have, and which of the two heads; reads no weight."""

import re
from collections.abc import Mapping

from mistral_mlx.errors import CheckpointError, shown
from mistral_mlx.model.args import ModelArgs, expected_shapes

from .source import SourceTensor

HEAD = "lm_head.weight"
# Buffers that old versions of transformers saved along; they follow from the config.
HARMLESS = re.compile(r"model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq")


def check_weights(tensors: Mapping[str, SourceTensor], args: ModelArgs) -> tuple[list[SourceTensor], list[str]]:
    """Return the tensors of the model in its own order, and remarks on what is left out.

    The weights decide on the head: an ``lm_head.weight`` that is there is kept, whatever the config says.

    Raises CheckpointError if a tensor is missing, unknown, or has another shape than `args` implies.
    """
    expected = expected_shapes(args)
    if HEAD not in tensors:
        if args.tie_word_embeddings is False:
            raise CheckpointError(f"{HEAD} is missing, and config.json says that it is not tied to the embedding")
        del expected[HEAD]
    dropped = [name for name in tensors if HARMLESS.fullmatch(name)]
    unknown = sorted(set(tensors) - set(expected) - set(dropped))
    if unknown:
        raise CheckpointError(
            f"{_named(unknown, 'tensor')} unknown to a {args.model_type} model; they cannot be converted"
        )
    missing = [name for name in expected if name not in tensors]
    if missing:
        raise CheckpointError(f"{_named(missing, 'tensor')} missing from the source")
    for name, shape in expected.items():
        if tensors[name].shape != shape:
            raise CheckpointError(
                f"tensor {name} has shape {list(tensors[name].shape)}, config.json implies {list(shape)}"
            )
    return [tensors[name] for name in expected], [
        f"{name} is left out: it follows from the config" for name in dropped[:1]
    ]


def is_norm(tensor: SourceTensor) -> bool:
    """Whether `tensor` is a norm's weight, which is never quantized."""
    return len(tensor.shape) == 1


def _named(names: list[str], what: str) -> str:
    first = shown(names[0])
    return f"{what} {first} is" if len(names) == 1 else f"{what}s {first} and {len(names) - 1} more are"

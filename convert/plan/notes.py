"""What the user is told of a plan, in one-line remarks."""

from collections.abc import Iterator, Sequence

from mistral_mlx.convert.sources.source import Source
from mistral_mlx.convert.sources.tokenizer_files import is_vocabulary
from mistral_mlx.convert.sources.weights import HEAD
from mistral_mlx.convert.storage.low_rank import Updated
from mistral_mlx.model import known

from .choice import Choice
from .step import Step

NOTHING_TO_UNPACK = "the source has nothing to unpack"


def remarks(source: Source, steps: Sequence[Step], choice: Choice) -> Iterator[str]:
    """Yield the remarks on what becomes of `source`."""
    packed = [step for step in steps if not step.tensor.storage.is_plain]
    yield from _carried([step for step in packed if step.carried])
    yield from _packed_again([step for step in packed if step.packing and not step.carried])
    if choice.dequantize:
        yield f"the source's {_labels(packed)} weights are unpacked" if packed else NOTHING_TO_UNPACK
    elif not any(step.packing for step in steps):
        yield "nothing could be quantized"
    yield from known.remarks(source.args)
    if source.config.get("tie_word_embeddings") is True and HEAD in source.tensors:
        yield f"the config ties the head to the embedding, but {HEAD} is there: it is kept and the config corrected"
    if not any(is_vocabulary(name) for name in source.files):
        yield "no tokenizer was found: the target works with token ids only"


def _carried(steps: Sequence[Step]) -> Iterator[str]:
    losses = [step.tensor.storage.loss(step.dtype) for step in steps]
    for loss in sorted(set(losses), key=lambda loss: (loss != "", loss)):
        alike = [step for step, of in zip(steps, losses, strict=True) if of == loss]
        without = "" if loss else " without loss"
        yield f"the source's {_labels(alike)} weights are carried over{without} ({_group_sizes(alike)}){loss}"


def _packed_again(steps: Sequence[Step]) -> Iterator[str]:
    merged = [step for step in steps if isinstance(step.tensor.storage, Updated)]
    others = [step for step in steps if step not in merged]
    near = [step for step in others if step.packing == step.tensor.storage.nearest]
    better = [step for step in others if step.tensor.storage.exact and not step.tensor.storage.is_target_form]
    worse = [step for step in others if step not in near + better]
    if near:
        forms = ", ".join(
            f"{label} to {bits} bits in groups of {group_size}"
            for label, bits, group_size in sorted(
                {(s.tensor.storage.label, s.packing.bits, s.packing.group_size) for s in near if s.packing}
            )
        )
        yield f"the source's weights that MLX has no single form for are unpacked and quantized again: {forms}"
    if merged:
        yield (
            f"{len(merged)} of the source's {_labels(merged)} weights are unpacked, merged with the adapter and "
            "quantized again; the original weights would give a better model"
        )
    if better:
        yield (
            f"the source's {_labels(better)} weights are quantized again; "
            "they are carried over without loss where no option asks for other bits"
        )
    if worse:
        yield (
            f"the source's {_labels(worse)} weights are quantized again, loss upon loss; "
            "the original weights would give a better model"
        )


def _labels(steps: Sequence[Step]) -> str:
    return ", ".join(sorted({kind for step in steps for kind in step.tensor.storage.label.split(", ")}))


def _group_sizes(steps: Sequence[Step]) -> str:
    return "group size " + ", ".join(str(n) for n in sorted({s.packing.group_size for s in steps if s.packing}))

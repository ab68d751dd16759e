"""What becomes of every tensor, decided before a byte is written; reads no weight and no file."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace

from mistral_mlx.convert.files.safetensors_writer import OutputTensor
from mistral_mlx.convert.sources.source import Source, SourceTensor
from mistral_mlx.convert.sources.tokenizer_files import check_vocabulary
from mistral_mlx.convert.sources.weights import HEAD, check_weights, is_norm
from mistral_mlx.errors import ConversionError, OptionError, shown
from mistral_mlx.model.packing import Packing

from .choice import Choice
from .notes import NOTHING_TO_UNPACK, remarks
from .step import Step

DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True)
class Plan:
    """Everything that will be written, but for the bytes."""

    source: Source
    steps: tuple[Step, ...]
    config: dict[str, object]  # of the target
    notes: tuple[str, ...]
    dtype: str | None = None  # of all that is not packed, if it was asked for

    @property
    def outputs(self) -> list[OutputTensor]:
        """All tensors of the target, in the model's order."""
        return [output for step in self.steps for output in step.outputs]

    @property
    def nbytes(self) -> int:
        """The bytes the target's weights take."""
        return sum(output.nbytes for output in self.outputs)

    @property
    def parameters(self) -> int:
        """How many weights the model has, a tied head counted once."""
        return sum(step.tensor.size for step in self.steps)


def make_plan(source: Source, choice: Choice, dtype: str | None, *, allow_nonfinite: bool = False) -> Plan:
    """Decide on every tensor of `source`. What is packed already is carried over if `choice` does not speak of it.

    Raises OptionError, CheckpointError or ConversionError if this cannot be done.
    """
    if dtype is not None and dtype not in DTYPES:
        raise OptionError(f"dtype is {shown(dtype)}; {', '.join(DTYPES)} are expected")
    tensors, notes = check_weights(source.tensors, source.args)
    check_vocabulary(source.tokenizer_ids, source.args.vocab_size)
    choice.check_rules([tensor.path for tensor in tensors if not is_norm(tensor)])
    steps = tuple(replace(_step(source, tensor, choice, dtype), allow_nonfinite=allow_nonfinite) for tensor in tensors)
    notes = [*source.notes, *notes, *remarks(source, steps, choice)]
    return Plan(source, steps, _target_config(source, steps, dtype), tuple(notes), dtype)


def with_packings(plan: Plan, packings: Mapping[str, Packing]) -> Plan:
    """Return `plan` with other packings of the modules named."""
    steps = tuple(replace(step, packing=packings.get(step.path, step.packing)) for step in plan.steps)
    return replace(plan, steps=steps, config=_target_config(plan.source, steps, plan.dtype))


def with_packed(plan: Plan, packed: Source) -> Plan:
    """Return `plan`, that of a plain copy, for what the copy was packed into: that is taken over as it is.

    Raises CheckpointError if `packed` is not the same model.
    """
    tensors, _ = check_weights(packed.tensors, packed.args)
    allowed = {step.tensor.name: step.allow_nonfinite for step in plan.steps}
    steps = tuple(replace(_as_stored(tensor), allow_nonfinite=allowed[tensor.name]) for tensor in tensors)
    notes = tuple(note for note in plan.notes if note != NOTHING_TO_UNPACK)
    config = _target_config(plan.source, steps, plan.dtype)
    return replace(plan, steps=steps, config=config, notes=notes)


def _as_stored(tensor: SourceTensor) -> Step:
    if tensor.storage.exact is None:
        return _keep_stored(tensor, None)
    return Step(tensor, _scales_dtype(tensor, None), tensor.storage.exact, carried=True)


def _step(source: Source, tensor: SourceTensor, choice: Choice, dtype: str | None) -> Step:
    storage = tensor.storage
    if source.is_packed and choice.carries(tensor.path):
        if storage.is_target_form and not (source.adapted or choice.rules):
            raise ConversionError(
                "the source is already quantized for MLX: use it as it is; --bits or --group-size quantize it again, "
                "--dequantize writes it back as plain weights"
            )
        if storage.exact:
            return Step(tensor, _scales_dtype(tensor, dtype), storage.exact, carried=True)
        if storage.nearest and tensor.columns % storage.nearest.group_size == 0:
            return Step(tensor, _scales_dtype(tensor, dtype), storage.nearest)
        if storage.is_plain:
            return _keep_stored(tensor, dtype)
    stored = DTYPES[dtype] if dtype else _own_dtype(source)
    kept = storage.dtype if storage.is_plain and source.keeps_dtypes and dtype is None else None
    if is_norm(tensor):
        return Step(tensor, kept or stored, None)
    packing, reason = choice.of(tensor.path, tensor.columns, source.args.n_layers)
    return Step(tensor, stored if packing else kept or stored, packing, reason=reason)


def _own_dtype(source: Source) -> str:
    """Return the dtype the source was made in: what its config says, else that of its embedding."""
    return DTYPES.get(source.args.dtype or "", source.tensors["model.embed_tokens.weight"].storage.dtype or "F16")


def _scales_dtype(tensor: SourceTensor, dtype: str | None) -> str:
    """Return the dtype of scales and biases of a tensor that is packed like the source. Raises OptionError."""
    possible = tensor.storage.exact_dtypes
    if not possible:
        return DTYPES[dtype or "float16"]
    if dtype and DTYPES[dtype] not in possible:
        raise OptionError(
            f"dtype is {shown(repr(dtype))}, which cannot hold the scales of a quantized source; "
            "leave it out, or give bits to quantize again"
        )
    return DTYPES[dtype] if dtype else possible[0]


def _keep_stored(tensor: SourceTensor, dtype: str | None) -> Step:
    stored = tensor.storage.dtype
    assert stored is not None and tensor.storage.is_plain
    reason = "" if is_norm(tensor) else f"the source stores it as {tensor.storage.label}"
    return Step(tensor, DTYPES[dtype] if dtype else stored, None, reason=reason)


def _target_config(source: Source, steps: tuple[Step, ...], dtype: str | None) -> dict[str, object]:
    config = {**source.config, "tie_word_embeddings": HEAD not in source.tensors}
    config |= {key: dtype for key in ("dtype", "torch_dtype") if dtype and key in config}
    packings = Counter(step.packing for step in steps if step.packing)
    if packings:
        usual = packings.most_common(1)[0][0]
        exceptions = {step.path: step.packing.as_config() for step in steps if step.packing not in (None, usual)}
        # mlx-lm reads the first key; Hugging Face shows the second.
        config["quantization"] = config["quantization_config"] = {**usual.as_config(), **exceptions}
    return config

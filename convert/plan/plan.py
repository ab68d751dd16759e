"""What becomes of every tensor, decided before a byte is written; reads no weight and no file."""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from mistral_mlx.convert.files.safetensors_writer import OutputTensor
from mistral_mlx.convert.sources.mlx import KIND as MLX_KIND
from mistral_mlx.convert.sources.source import FLOAT_KINDS, Source, SourceTensor
from mistral_mlx.convert.sources.tokenizer_files import check_vocabulary, is_vocabulary
from mistral_mlx.convert.sources.weights import HEAD, check_weights, is_norm
from mistral_mlx.convert.storage.gptq import KINDS as GPTQ_KINDS
from mistral_mlx.convert.storage.packed import PRODUCT_KINDS
from mistral_mlx.errors import ConversionError, OptionError, shown
from mistral_mlx.model.args import ModelArgs, Packing

from .choice import Choice

NOTHING_TO_UNPACK = "the source has nothing to unpack"
DTYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


@dataclass(frozen=True)
class Step:
    """What becomes of one tensor."""

    tensor: SourceTensor
    dtype: str  # F16, BF16 or F32: of the weight, or of a packed one before it is packed, and of its affine scales
    packing: Packing | None  # None: the weight is kept as it is
    carried: bool = False  # the source's own quantization is taken over, not made anew
    reason: str = ""  # why a matrix is kept
    search: bool = False  # for better scales and biases than those of mx.quantize
    compensate: bool = False  # errors, where the inputs of the product are known

    @property
    def outputs(self) -> list[OutputTensor]:
        """The tensors this one becomes: the weight alone, or the packed weight with its scales and perhaps biases."""
        name, shape = self.tensor.name, self.tensor.shape
        if self.packing is None:
            return [OutputTensor(name, self.dtype, shape)]
        rows, columns = shape
        groups = (rows, columns // self.packing.group_size)
        weight = OutputTensor(name, "U32", (rows, columns * self.packing.bits // 32))
        if self.packing.mode != "affine":
            return [weight, OutputTensor(f"{self.path}.scales", "U8", groups)]
        return [weight, *(OutputTensor(f"{self.path}.{part}", self.dtype, groups) for part in ("scales", "biases"))]

    @property
    def path(self) -> str:
        """The module the weight belongs to."""
        return self.tensor.path


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


def make_plan(source: Source, choice: Choice, dtype: str | None) -> Plan:
    """Decide on every tensor of `source`. What is packed already is carried over if `choice` does not speak of it.

    Raises OptionError, ConfigError, CheckpointError or ConversionError if this cannot be done.
    """
    if dtype is not None and dtype not in DTYPES:
        raise OptionError(f"dtype is {shown(dtype)}; {', '.join(DTYPES)} are expected")
    args = ModelArgs.from_config(source.config)
    tensors, notes = check_weights(source.tensors, args)
    check_vocabulary(source.tokenizer_ids, args.vocab_size)
    choice.check_rules([tensor.path for tensor in tensors if not is_norm(tensor)])
    steps = tuple(_step(source, tensor, choice, args, dtype) for tensor in tensors)
    notes = [*source.notes, *notes, *_notes(source, steps, choice)]
    return Plan(source, steps, _target_config(source, steps, dtype), tuple(notes), dtype)


def with_packings(plan: Plan, packings: Mapping[str, Packing]) -> Plan:
    """Return `plan` with other packings of the modules named."""
    steps = tuple(replace(step, packing=packings.get(step.path, step.packing)) for step in plan.steps)
    return replace(plan, steps=steps, config=_target_config(plan.source, steps, plan.dtype))


def with_packed(plan: Plan, packed: Source) -> Plan:
    """Return `plan`, that of a plain copy, for what the copy was packed into: that is taken over as it is.

    Raises CheckpointError if `packed` is not the same model.
    """
    tensors, _ = check_weights(packed.tensors, ModelArgs.from_config(plan.config))
    steps = tuple(_carry(tensor, None) if tensor.packing else _keep_stored(tensor, None) for tensor in tensors)
    notes = tuple(note for note in plan.notes if note != NOTHING_TO_UNPACK)
    config = _target_config(plan.source, steps, plan.dtype)
    return replace(plan, steps=steps, config=config, notes=notes)


def _step(source: Source, tensor: SourceTensor, choice: Choice, args: ModelArgs, dtype: str | None) -> Step:
    if source.is_packed and choice.carries(tensor.path):
        if tensor.kind == MLX_KIND and not (source.adapted or choice.rules):
            raise ConversionError(
                "the source is already quantized for MLX: use it as it is; --bits or --group-size quantize it again, "
                "--dequantize writes it back as plain weights"
            )
        if tensor.nearest and tensor.columns % tensor.nearest.group_size == 0:
            return Step(tensor, DTYPES[dtype or "float16"], tensor.nearest)
        if tensor.packing:
            return _carry(tensor, dtype)
        if tensor.kind in FLOAT_KINDS:
            return _keep_stored(tensor, dtype)
    stored = DTYPES[dtype] if dtype else _own_dtype(source, args)
    keeps_dtype = source.keeps_dtypes and dtype is None and tensor.kind in FLOAT_KINDS
    kept = tensor.kind if keeps_dtype else stored
    if is_norm(tensor):
        return Step(tensor, kept, None)
    packing, reason = choice.of(tensor.path, tensor.columns, args.n_layers)
    return Step(tensor, stored if packing else kept, packing, reason=reason)


def _own_dtype(source: Source, args: ModelArgs) -> str:
    """Return the dtype the source was made in: what its config says, else that of its embedding."""
    embedding = source.tensors["model.embed_tokens.weight"]
    kinds = [kind for kind in (embedding.kind, embedding.arrays[-1].dtype) if kind in FLOAT_KINDS]
    return DTYPES.get(args.dtype or "", (*kinds, "F16")[0])


def _carry(tensor: SourceTensor, dtype: str | None) -> Step:
    assert tensor.packing is not None
    scales = tensor.arrays[-1].dtype
    if tensor.kind == MLX_KIND:
        kept = scales if scales in FLOAT_KINDS else "BF16"  # the float modes have no dtype of their own
    else:
        kept = "F32" if {"BF16", "F32"} & {array.dtype for array in tensor.arrays} else "F16"
    stored = DTYPES[dtype] if dtype else kept
    if stored != kept and (stored != "F32" or tensor.kind == MLX_KIND):
        raise OptionError(
            f"dtype is {shown(repr(dtype))}, which cannot hold the scales of a quantized source; "
            "leave it out, or give bits to quantize again"
        )
    return Step(tensor, stored, tensor.packing, carried=tensor.update is None)


def _keep_stored(tensor: SourceTensor, dtype: str | None) -> Step:
    reason = "" if is_norm(tensor) else f"the source stores it as {tensor.kind}"
    return Step(tensor, DTYPES[dtype] if dtype else tensor.kind, None, reason=reason)


def _notes(source: Source, steps: tuple[Step, ...], choice: Choice) -> Iterator[str]:
    packed = [step for step in steps if step.tensor.kind not in FLOAT_KINDS]
    carried = [step for step in packed if step.carried]
    unequal = [step for step in carried if step.tensor.kind in PRODUCT_KINDS and step.dtype != "F32"]
    zeros = [step for step in carried if step.tensor.kind in GPTQ_KINDS and step.dtype == "F16"]
    if exact := [step for step in carried if step not in unequal + zeros]:
        yield f"the source's {_kinds(exact)} weights are carried over without loss ({_group_sizes(exact)})"
    if unequal:
        yield (
            f"the source's {_kinds(unequal)} weights are carried over ({_group_sizes(unequal)}), their scales rounded "
            "to float16 (--dtype float32 keeps them to the bit)"
        )
    if zeros:
        bound = max(2**step.packing.bits - 1 for step in zeros if step.packing) / 2048
        yield (
            f"the source's {_kinds(zeros)} weights are carried over ({_group_sizes(zeros)}); scale * zero is "
            f"rounded to float16, by at most {bound:.2g} of a step, and by nothing with --dtype float32"
        )
    if near := [step for step in packed if step.packing and step.packing == step.tensor.nearest]:
        chosen = sorted(
            {(step.tensor.kind, step.packing.bits, step.packing.group_size) for step in near if step.packing}
        )
        forms = ", ".join(f"{kind} to {bits} bits in groups of {group_size}" for kind, bits, group_size in chosen)
        yield f"the source's weights that MLX has no form for are unpacked and quantized again: {forms}"
    if merged := [step for step in packed if step.packing and step.tensor.update]:
        yield (
            f"{len(merged)} of the source's {_kinds(merged)} weights are unpacked, merged with the adapter and "
            "quantized again; the original weights would give a better model"
        )
    again = [step for step in packed if step.packing and not step.carried and step not in near + merged]
    if better := [step for step in again if step.tensor.packing and step.tensor.kind != MLX_KIND]:
        yield (
            f"the source's {_kinds(better)} weights are quantized again; "
            "they are carried over without loss where no option asks for other bits"
        )
    if worse := [step for step in again if step not in better]:
        yield (
            f"the source's {_kinds(worse)} weights are quantized again, loss upon loss; "
            "the original weights would give a better model"
        )
    if choice.dequantize:
        yield f"the source's {_kinds(packed)} weights are unpacked" if packed else NOTHING_TO_UNPACK
    elif not any(step.packing for step in steps):
        yield "nothing could be quantized"
    if source.config.get("tie_word_embeddings") is True and HEAD in source.tensors:
        yield f"the config ties the head to the embedding, but {HEAD} is there: it is kept and the config corrected"
    if not any(is_vocabulary(name) for name in source.files):
        yield "no tokenizer was found: the target works with token ids only"


def _kinds(steps: list[Step]) -> str:
    return ", ".join(sorted({step.tensor.kind for step in steps}))


def _group_sizes(steps: list[Step]) -> str:
    return "group size " + ", ".join(str(n) for n in sorted({s.packing.group_size for s in steps if s.packing}))


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

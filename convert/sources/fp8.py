"""The tensors of an FP8 checkpoint with their scales, as three programs store them.

    Mistral's own layout    X.qscale_weight: a number                           X.qscale_act
    quant_method "fp8"      X.weight_scale_inv: a number, or one per block      X.activation_scale
    compressed-tensors      X.weight_scale: a number, or one per row or block   X.input_scale

The scales of activations, on the right, are for hardware that multiplies in FP8, and are left out.
"""

from collections.abc import Callable, Mapping

from mistral_mlx.convert.storage.fp8 import KIND, Fp8
from mistral_mlx.convert.storage.rows import FLOAT_KINDS, Stored
from mistral_mlx.errors import CheckpointError, ConfigError, ConversionError, shown
from mistral_mlx.files.keys import Keys
from mistral_mlx.files.safetensors import TensorEntry

from .entries import check_heads, ordered, plain_tensor, stored
from .source import SourceTensor

SCALES = ("qscale_weight", "weight_scale_inv", "weight_scale")
ACTIVATION_SCALES = ("qscale_act", "activation_scale", "input_scale", "output_scale", "q_scale", "k_scale", "v_scale")
FORMATS = ("float-quantized", "naive-quantized")  # of compressed-tensors

BlockShape = tuple[int, int]  # rows and columns that share a scale


def block_shape(rule: Mapping[str, object], where: str) -> BlockShape | None:
    """Return the blocks that `rule` names; None if it names none.

    Raises ConfigError or ConversionError if it is about other weights than these, or the blocks are impossible.
    """
    weights = _weights_rule(rule)
    if weights is None:
        raise ConversionError(
            f"{where} is {shown(dict(rule))}; of its kind, only FP8 weights (E4M3) can be converted; "
            "convert the original weights instead"
        )
    shape = rule.get("weight_block_size") or weights.get("block_structure")
    if not shape:
        return None
    if not isinstance(shape, list) or len(shape) != 2 or any(type(n) is not int or n < 1 for n in shape):
        raise Keys(rule, f"{where}.", ConfigError).bad("weight_block_size", shape, "a list of two whole numbers from 1")
    return shape[0], shape[1]


def _weights_rule(rule: Mapping[str, object]) -> Mapping[str, object] | None:
    """Return what `rule` says of weights; None if they are not FP8."""
    if rule.get("quant_method") == "fp8":
        return {} if rule.get("fmt", "e4m3") == "e4m3" else None
    if "quant_method" not in rule:
        return {} if rule.get("qformat_weight") == "fp8_e4m3" else None
    groups = rule.get("config_groups")
    if rule.get("format") not in FORMATS or not isinstance(groups, Mapping) or len(groups) != 1:
        return None
    (group,) = groups.values()
    weights = group.get("weights") if isinstance(group, Mapping) else None
    is_fp8 = isinstance(weights, Mapping) and weights.get("type") == "float" and weights.get("num_bits") == 8
    return weights if is_fp8 and isinstance(weights, Mapping) else None


def scaled_tensors(
    entries: Mapping[str, TensorEntry],
    block: BlockShape | None,
    notes: list[str],
    head_dim: Callable[[str], int | None] = lambda name: None,
) -> dict[str, SourceTensor]:
    """Return all tensors but the scales, those in FP8 together with theirs.

    `head_dim` gives the rows of a head for the names of tensors whose heads lie in pairs of rows.

    Raises CheckpointError if a scale is missing, left over, or of another shape than its weight implies.
    """
    tensors: dict[str, SourceTensor] = {}
    left_out = set()
    for name, entry in entries.items():
        path, _, part = name.rpartition(".")
        if part in ACTIVATION_SCALES:
            left_out.add(part)
        elif entry.dtype == KIND:
            found = [entries[f"{path}.{scale}"] for scale in SCALES if f"{path}.{scale}" in entries]
            if part != "weight" or len(found) != 1:
                raise CheckpointError(
                    f"tensor {shown(entry.name)} is stored as {KIND} with {len(found)} scales; one is expected"
                )
            tensors[name] = _scaled(entry, found[0], name, block, head_dim(name))
        elif part not in SCALES:
            tensors[name] = plain_tensor(entry, name, head_dim(name))
        elif f"{path}.weight" not in entries or entries[f"{path}.weight"].dtype != KIND:
            raise CheckpointError(f"tensor {shown(entry.name)} has no {KIND} weight beside it")
    notes += [f"{part} is left out: activations are not quantized here" for part in sorted(left_out)]
    return tensors


def _scaled(
    entry: TensorEntry, scale: TensorEntry, name: str, block: BlockShape | None, head_dim: int | None
) -> SourceTensor:
    weight = stored(entry, name)
    if len(entry.shape) != 2:
        raise CheckpointError(f"tensor {shown(entry.name)} of shape {list(entry.shape)} is no matrix, but {KIND}")
    check_heads(entry.name, entry.shape, head_dim)
    rows, columns = entry.shape
    shapes = {(): (rows, columns), (1,): (rows, columns), (1, 1): (rows, columns)}
    if block is not None and head_dim is None:
        shapes[(-(-rows // block[0]), -(-columns // block[1]))] = block
    shapes |= {(rows,): (1, columns), (rows, 1): (1, columns)} if rows > 1 else {}
    if scale.dtype not in FLOAT_KINDS or scale.shape not in shapes:
        raise CheckpointError(
            f"tensor {shown(scale.name)} is {scale.dtype} {list(scale.shape)}, which does not scale "
            f"{list(entry.shape)} weights in blocks of {list(block) if block else 'rows'}"
        )
    span, width = shapes[scale.shape]
    count = -(-rows // span)
    scales = Stored(name, scale.file, scale.start, count, scale.nbytes // count, scale.dtype)
    return SourceTensor(name, (rows, columns), ordered(Fp8(weight, scales, span, width), head_dim))

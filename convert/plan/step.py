"""What becomes of one tensor of the source."""

from dataclasses import dataclass

from mistral_mlx.convert.files.safetensors_writer import OutputTensor
from mistral_mlx.convert.sources.source import SourceTensor
from mistral_mlx.model.packing import Packing


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
    allow_nonfinite: bool = False  # weights that are NaN or infinite are no error

    @property
    def outputs(self) -> list[OutputTensor]:
        """The tensors this one becomes: the weight alone, or the packed weight with its scales and perhaps biases."""
        name, shape = self.tensor.name, self.tensor.shape
        if self.packing is None:
            return [OutputTensor(name, self.dtype, shape)]
        *lines, columns = shape  # rows, or experts and rows
        groups = (*lines, columns // self.packing.group_size)
        weight = OutputTensor(name, "U32", (*lines, columns * self.packing.bits // 32))
        if self.packing.mode != "affine":
            return [weight, OutputTensor(f"{self.path}.scales", "U8", groups)]
        return [weight, *(OutputTensor(f"{self.path}.{part}", self.dtype, groups) for part in ("scales", "biases"))]

    @property
    def path(self) -> str:
        """The module the weight belongs to."""
        return self.tensor.path

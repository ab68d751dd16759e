"""Plain weights: float32, float16 or bfloat16, row after row."""

from collections.abc import Iterator
from dataclasses import dataclass

from .rows import Bytes, OneArray, Rows, Weights, read


@dataclass(frozen=True)
class Plain(OneArray):
    """Weights as they are; `kind` is one of FLOAT_KINDS."""

    @property
    def dtype(self) -> str:
        return self.kind

    @property
    def is_plain(self) -> bool:
        return True

    def blocks(self, step: int) -> Iterator[Rows]:
        return (PlainRows(raw, self.kind) for raw in read(self.array, step))


@dataclass(frozen=True)
class PlainRows(Rows):
    """Rows of a Plain."""

    raw: Bytes
    kind: str

    @property
    def n_rows(self) -> int:
        return len(self.raw)

    def weights(self) -> Weights:
        return Weights(self.raw, self.kind)

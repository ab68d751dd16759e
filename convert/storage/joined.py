"""Matrices of one shape that are stored apart, as one tensor: those of the experts of a mixture, row after row."""

from collections.abc import Iterator
from dataclasses import dataclass

from mistral_mlx.model.packing import Packing

from .rows import Rows, Storage, Stored


@dataclass(frozen=True)
class Joined(Storage):
    """Storages with as many rows and columns each. No block of rows lies in two of them."""

    parts: tuple[Storage, ...]

    @property
    def label(self) -> str:
        return ", ".join(sorted({part.label for part in self.parts}))

    @property
    def arrays(self) -> tuple[Stored, ...]:
        return tuple(array for part in self.parts for array in part.arrays)

    @property
    def dtype(self) -> str | None:
        found = {part.dtype for part in self.parts}
        if None in found:
            return None
        return found.pop() if len(found) == 1 else "F32"  # which holds all of them

    @property
    def is_plain(self) -> bool:
        return all(part.is_plain for part in self.parts)

    @property
    def is_target_form(self) -> bool:
        return self.exact is not None and all(part.is_target_form for part in self.parts)

    @property
    def exact(self) -> Packing | None:
        alike = len({(part.exact, part.exact_dtypes) for part in self.parts}) == 1
        return self.parts[0].exact if alike else None

    @property
    def exact_dtypes(self) -> tuple[str, ...]:
        return self.parts[0].exact_dtypes if self.exact else ()

    @property
    def nearest(self) -> Packing | None:
        if self.exact is not None:
            return None
        found = [packing for part in self.parts if (packing := part.exact or part.nearest)]
        return max(found, default=None)  # the one with most bits

    @property
    def unit(self) -> int:
        return self.parts[0].unit

    def blocks(self, step: int) -> Iterator[Rows]:
        for part in self.parts:
            yield from part.blocks(step)

    def loss(self, dtype: str) -> str:
        return next(filter(None, (part.loss(dtype) for part in self.parts)), "")

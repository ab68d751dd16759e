"""mlx-lm's side, on the CPU: it loads the same folder as ours with its own loader.

python benchmarks/side_mlx_lm.py FOLDER
"""

import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from common import serve, timed
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model


class MlxLm:
    """The model, and the cache of the last request."""

    def __init__(self, folder: str) -> None:
        mx.set_default_device(mx.cpu)
        self.model, self.config = load_model(Path(folder))
        self.cache: list[Any] = make_prompt_cache(self.model)

    def about(self) -> dict[str, Any]:
        """Say what runs."""
        versions = {name: importlib.metadata.version(name) for name in ("mlx-lm", "mlx")}
        return {"version": f"mlx-lm {versions['mlx-lm']}", "kernels": f"mlx {versions['mlx']}, cpu"}

    def prefill(self, n: int) -> dict[str, Any]:
        """Time a prompt of `n` tokens into an empty cache, up to the logits of its last token."""
        self.cache = make_prompt_cache(self.model)
        return timed(lambda: mx.eval(self.model(mx.array([self._ids(n)]), cache=self.cache)[:, -1]))

    def decode(self, n: int, depth: int) -> dict[str, Any]:
        """Time `n` tokens one by one at positions from `depth` on, up to the logits; nothing is sampled."""
        self.cache = make_prompt_cache(self.model)
        if depth:
            self.prefill(depth)
        return timed(lambda: [mx.eval(self.model(mx.array([[i]]), cache=self.cache)) for i in self._ids(n)])

    def _ids(self, n: int) -> list[int]:
        return list(map(int, np.random.default_rng(0).integers(3, self.config["vocab_size"], n)))


def main() -> None:
    """Load the model and answer until the input ends."""
    side = MlxLm(sys.argv[1])
    serve({name: getattr(side, name) for name in ("about", "prefill", "decode")})


if __name__ == "__main__":
    main()

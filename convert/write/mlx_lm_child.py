"""A program that packs the plain model in its folder by mlx-lm: python -m mistral_mlx.convert.write.mlx_lm_child

Its folder holds what `process.py` puts there. It says how far it is on stdout, a line ``DONE TOTAL WHAT`` each time;
what mlx-lm prints goes to stderr, and an error is its last line there. It ends when stdin does.
"""

import copy
import importlib
import json
import os
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sized
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import numpy.typing as npt
from mlx.utils import tree_flatten

from .mlx_lm import JOB, PACKED, PLAIN, SAMPLES

EMBEDDING_BITS, EMBEDDING_GROUP = 4, 32  # at least so many bits: mlx-lm's for AWQ, which scales no embedding
FALLBACK_BITS = 6  # mlx-lm's for what GPTQ does not reach: the embedding
BATCH = 8  # samples that GPTQ reads together
LEARNING_RATE, SEED = 1e-6, 123  # of DWQ; mlx-lm's. With 2e-5 and six samples a model became worse

Samples = npt.NDArray[np.int32]  # [n, tokens]
Report = Callable[[str, int, int], None]


def main() -> None:
    """Pack the model of the current folder, and write it beside."""
    report = _reporter()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    folder = Path.cwd()
    job = json.loads((folder / JOB).read_bytes())
    report("loading mlx-lm", 0, 1)
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    if on_cpu:
        mx.disable_compile()  # which needs a C++ compiler when it runs
    utils = importlib.import_module("mlx_lm.utils")
    module: Any = importlib.import_module(f"mlx_lm.quant.{job['method']}")
    module.tqdm = _loop(job["method"].upper(), report)
    mx.random.seed(SEED)
    model, config = utils.load_model(folder / PLAIN)
    dtype = model.model.embed_tokens.weight.dtype
    if on_cpu or job["method"] == "gptq":  # sums of squares leave float16; a CPU multiplies in float32 best
        model.set_dtype(mx.float32)
    samples: Samples = np.load(folder / SAMPLES)
    model = METHODS[job["method"]](module, model, samples, job["bits"], job["group_size"])
    model.set_dtype(dtype)
    _save(model, config, folder / PACKED)


def _awq(awq: Any, model: Any, samples: Samples, bits: int, group_size: int) -> Any:
    more = {"embed_bits": max(bits, EMBEDDING_BITS), "embed_group_size": EMBEDDING_GROUP}
    awq.awq_quantize(model, mx.array(samples), awq.llama_awq, bits=bits, group_size=group_size, **more)
    return model


def _gptq(gptq: Any, model: Any, samples: Samples, bits: int, group_size: int) -> Any:
    fallback = max(bits, FALLBACK_BITS)
    return gptq.gptq_quantize(model, mx.array(samples), bits, group_size, fallback, group_size, batch_size=BATCH)[0]


def _dwq(dwq: Any, model: Any, samples: Samples, bits: int, group_size: int) -> Any:
    student = copy.deepcopy(model)
    dwq.quantize_model(student, {}, group_size, bits)
    data = [(sample, 0) for sample in samples.tolist()]
    n_valid = len(data) // 16 or 1
    train = data[n_valid:] or data
    dwq.dwq_quantize(
        student,
        lambda batch, index, split: model(batch),
        dwq.optimizers.Adam(learning_rate=LEARNING_RATE, bias_correction=True),
        train,
        data[:n_valid],
        batch_size=1,
        max_seq_length=samples.shape[1],
        seed=SEED,
        dtype=model.model.norm.weight.dtype,
    )
    return student


METHODS = {"awq": _awq, "gptq": _gptq, "dwq": _dwq}


def _save(model: Any, config: dict[str, object], folder: Path) -> None:
    """Write all weights into one file, and how each module is packed into config.json."""
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    for name, weight in weights.items():
        if weight.dtype != mx.uint32 and not mx.isfinite(weight).all().item():
            raise ValueError(f"{name} became NaN or infinite")
    rule: dict[str, object] = {}
    for path, module in model.named_modules():
        if hasattr(module, "bits"):
            packing = {"group_size": module.group_size, "bits": module.bits}
            rule = {**(rule or packing), path: packing}
    folder.mkdir()
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    (folder / "config.json").write_text(json.dumps({**config, "quantization": rule}))


def _reporter() -> Report:
    """Return what writes to stdout, which nobody else shall do from now on."""
    channel = open(os.dup(1), "w", encoding="utf-8")  # noqa: SIM115 - open to the end
    os.dup2(2, 1)

    def report(what: str, done: int, total: int) -> None:
        channel.write(f"{done} {total} {what}\n")
        channel.flush()

    return report


def _end_with_parent() -> None:
    os.read(0, 1)  # nothing is ever sent
    os._exit(1)


def _loop(method: str, report: Report) -> type:
    """Return what stands in for tqdm: it shows nothing, and reports how far the loop is."""

    class Loop:
        def __init__(self, items: Iterable[Any], total: int | None = None, desc: str = "", **_: object) -> None:
            self._items, self._what = items, f"{method}: {desc.lower()}".removesuffix(": ")
            self._total = total or (len(items) if isinstance(items, Sized) else 0)

        def __iter__(self) -> Iterator[Any]:
            for done, item in enumerate(self._items):
                report(self._what, done, max(done, self._total))
                yield item

        def set_description(self, desc: str) -> None:
            """Say nothing: the loss is no one's business."""

        @staticmethod
        def write(text: str, **_: object) -> None:
            sys.stderr.write(f"{text}\n")

    return Loop


if __name__ == "__main__":
    main()

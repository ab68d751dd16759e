"""llama.cpp's side, through the C interface of llama-cpp-python, in its own environment.

python benchmarks/side_llama.py serve FILE THREADS CONTEXT
python benchmarks/side_llama.py first-token FILE THREADS N    reads N ids, writes the first of the answer
python benchmarks/side_llama.py quantize SOURCE TARGET THREADS    to Q4_0, all matrices
"""

import ctypes
import sys
from typing import Any

import llama_cpp
import numpy as np
from common import serve, timed

BATCH = 512


@llama_cpp.llama_log_callback
def _log(level: int, text: bytes, _: object) -> None:
    """Pass on errors alone; the enum of ggml has 4 for them."""
    if level == 4:
        print(text.decode(errors="replace"), end="", file=sys.stderr)


class Llama:
    """A model and a context with the program's own defaults, but for the number of threads."""

    def __init__(self, path: str, threads: int, n_ctx: int) -> None:
        _start()
        options = llama_cpp.llama_model_default_params()
        options.n_gpu_layers = 0
        self.model = llama_cpp.llama_model_load_from_file(path.encode(), options)
        if not self.model:
            raise SystemExit(f"llama.cpp cannot load {path}")
        settings = llama_cpp.llama_context_default_params()
        settings.n_ctx, settings.n_batch, settings.n_ubatch = n_ctx, BATCH, BATCH
        settings.n_threads = settings.n_threads_batch = threads
        settings.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, settings)
        if not self.context:
            raise SystemExit(f"llama.cpp makes no context of {n_ctx} tokens")
        self.memory = llama_cpp.llama_get_memory(self.context)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.offset = 0

    def about(self) -> dict[str, Any]:
        """Say what runs; "REPACK" among the features is what makes its products fast."""
        features = llama_cpp.llama_print_system_info().decode().strip()
        return {"version": f"llama-cpp-python {llama_cpp.__version__}", "kernels": features}

    def prefill(self, n: int) -> dict[str, Any]:
        """Time a prompt of `n` tokens into an empty cache, up to the logits of its last token."""
        self._go_back(0)
        return timed(lambda: self._read(self.ids(n)))

    def decode(self, n: int, depth: int) -> dict[str, Any]:
        """Time `n` tokens one by one at positions from `depth` on, up to the logits; nothing is sampled."""
        if self.offset < depth:
            self.prefill(depth)
        self._go_back(depth)
        return timed(lambda: [self._evaluate([token]) for token in self.ids(n)])

    def first_token(self, n: int) -> int:
        """Return the likeliest id after a prompt of `n` tokens."""
        self._read(self.ids(n))
        logits = llama_cpp.llama_get_logits_ith(self.context, -1)
        return int(np.argmax(np.ctypeslib.as_array(logits, (self.n_vocab,))))

    def ids(self, n: int) -> list[int]:
        """Return the ids of a prompt: the same on every call, and on both sides."""
        return list(map(int, np.random.default_rng(0).integers(3, self.n_vocab, n)))

    def _read(self, ids: list[int]) -> None:
        for start in range(0, len(ids), BATCH):
            self._evaluate(ids[start : start + BATCH])

    def _evaluate(self, ids: list[int]) -> None:
        """Run one batch; the logits of its last token alone are computed."""
        tokens = (llama_cpp.llama_token * len(ids))(*ids)  # the batch points to it and does not keep it alive
        batch = llama_cpp.llama_batch_get_one(tokens, len(ids))
        status = llama_cpp.llama_decode(self.context, batch)
        llama_cpp.llama_synchronize(self.context)
        if status:
            raise SystemExit(f"llama_decode returned {status} for {len(ids)} tokens at position {self.offset}")
        self.offset += len(ids)

    def _go_back(self, depth: int) -> None:
        llama_cpp.llama_memory_seq_rm(self.memory, 0, depth, -1)
        self.offset = depth


def quantize(source: str, target: str, threads: int) -> None:
    """Convert to Q4_0; "pure": embedding and head too, which we quantize as well."""
    _start()
    options = llama_cpp.llama_model_quantize_default_params()
    options.nthread, options.ftype, options.pure = threads, llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0, True
    status = llama_cpp.llama_model_quantize(source.encode(), target.encode(), ctypes.byref(options))
    if status:
        raise SystemExit(f"llama_model_quantize returned {status}")


def _start() -> None:
    llama_cpp.llama_log_set(_log, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()


def main() -> None:
    """Do what the first argument says."""
    verb, *arguments = sys.argv[1:]
    if verb == "serve":
        side = Llama(arguments[0], int(arguments[1]), int(arguments[2]))
        serve({name: getattr(side, name) for name in ("about", "prefill", "decode")})
    elif verb == "first-token":
        n_tokens = int(arguments[2])
        print(Llama(arguments[0], int(arguments[1]), max(BATCH, n_tokens)).first_token(n_tokens), flush=True)
    elif verb == "quantize":
        quantize(arguments[0], arguments[1], int(arguments[2]))
    else:
        raise SystemExit(f"{verb!r} is not serve, first-token or quantize")


if __name__ == "__main__":
    main()

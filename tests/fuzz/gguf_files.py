"""Cases for the reader of GGUF files."""

import contextlib
import json
import struct
from pathlib import Path
from random import Random

import numpy as np
from fuzz.mutations import damaged, mutated
from fuzz.reader import Reader
from helpers.tokenizer_files import CHATML

from mistral_mlx.convert.plan.choice import Choice
from mistral_mlx.convert.plan.plan import make_plan
from mistral_mlx.convert.sources.gguf.source import open_gguf


class GGUF(Reader):
    """The header of a GGUF file, its config, and the tokenizer rebuilt from it."""

    FORMS = ("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d")

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.file = place / "x.gguf"
        llama = [["unk", "<s>", "</s>", "▁", "a", "b", "ab"], [2, 3, 3, 1, 1, 1, 1]]
        gpt2 = [["<s>", "</s>", "a", "b", "ab", "Ġ"], [3, 3, 1, 1, 1, 1]]
        common = [["general.architecture", 8, "llama"], ["general.alignment", 4, 32]]
        common += [[f"llama.{key}", 4, n] for key, n in (("block_count", 1), ("embedding_length", 32))]
        common += [["llama.feed_forward_length", 4, 32], ["llama.attention.head_count", 4, 2]]
        common += [["llama.context_length", 4, 64], ["llama.attention.layer_norm_rms_epsilon", 6, 1e-5]]
        common += [["tokenizer.ggml.bos_token_id", 4, 1], ["tokenizer.chat_template", 8, CHATML]]
        self.documents = [self._document(common, "llama", *llama), self._document(common, "gpt2", *gpt2)]

    def _document(self, common: list, model: str, tokens: list, kinds: list) -> dict:
        pairs = [*common, ["tokenizer.ggml.model", 8, model], ["tokenizer.ggml.tokens", 9, [8, tokens]]]
        pairs += [["tokenizer.ggml.token_type", 9, [5, kinds]], ["tokenizer.ggml.scores", 9, [6, [0.0] * len(tokens)]]]
        pairs += [["tokenizer.ggml.merges", 9, [8, ["a b"]]], ["tokenizer.ggml.pre", 8, "tekken"]]
        names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
        shapes = {f"blk.0.{name}.weight": [32, 32] for name in names} | {"token_embd.weight": [32, len(tokens)]}
        shapes |= {f"{name}.weight": [32] for name in ("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm")}
        tensors, end = [], 0
        for name, shape in shapes.items():
            tensors.append([name, shape, 0, end])
            end += 4 * int(np.prod(shape))
        return {"pairs": pairs, "tensors": tensors, "counts": [len(tensors), len(pairs)], "size": end}

    def __call__(self, rng: Random) -> None:
        content = None
        while content is None:  # until a change comes that can be written
            with contextlib.suppress(
                TypeError, ValueError, KeyError, IndexError, struct.error, AttributeError, OverflowError
            ):
                content = self._encoded(mutated(rng.choice(self.documents), rng))
        if rng.random() < 0.3:
            content = damaged(content[:-4096], rng) + content[-4096:]
        self.file.write_bytes(content)
        source = open_gguf(self.file)
        for tensor in source.tensors.values():
            for array in tensor.storage.arrays:
                assert 0 <= array.start <= array.start + array.nbytes <= len(content), tensor
        json.dumps(make_plan(source, Choice(), None).config, allow_nan=False)

    def _encoded(self, document: dict) -> bytes:
        counts = document["counts"]
        parts = [b"GGUF" + struct.pack("<IQQ", 3, *counts)]
        for key, kind, value in document["pairs"]:
            parts += [self._text(key), struct.pack("<I", kind), self._value(kind, value)]
        for name, shape, kind, offset in document["tensors"]:
            parts += [self._text(name), struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)]
        head = b"".join(parts)
        return head + bytes(-len(head) % 32) + bytes(min(document["size"], 1 << 20))

    def _text(self, text: str) -> bytes:
        raw = text.encode("utf-8", "surrogatepass")
        return struct.pack("<Q", len(raw)) + raw

    def _value(self, kind: int, value: object) -> bytes:
        if kind == 8:
            return self._text(value)
        if kind == 9:
            inner, items = value
            return struct.pack("<IQ", inner, len(items)) + b"".join(self._value(inner, item) for item in items)
        return struct.pack(f"<{self.FORMS[kind]}", value)

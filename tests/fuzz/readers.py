"""The readers that the fuzzer calls: each makes a random case and reads it.

A reader is a class whose instances are called with the generator. It may raise what `expected` names, and nothing
else; what it accepts must be what the rest of the program counts on, which is asserted.
"""

import contextlib
import json
import struct
from pathlib import Path
from random import Random

import mlx.core as mx
import numpy as np
from fuzz.mutations import NUMBERS, TEXTS, damaged, dumped, mutated
from fuzz.reader import Reader
from fuzz.sources import SOURCE_READERS
from helpers.convert_sources import CONFIG, write_native
from helpers.models import TINY
from helpers.tiny_folder import train_tokenizer, write_tiny_folder
from helpers.tokenizer_files import CHATML, byte_level_json, piece_json
from hostile.case import tiny_tekken
from hostile.tensors import join, split

from mistral_mlx import kernels
from mistral_mlx.cli.chat.settings import ChatOptions
from mistral_mlx.convert.plan.choice import Choice
from mistral_mlx.convert.plan.plan import make_plan
from mistral_mlx.convert.sources.gguf.source import open_gguf
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.json import parse_json
from mistral_mlx.files.safetensors import INDEX_NAME, find_tensors, read_header
from mistral_mlx.generation.stream import AnswerOptions, stream_generate
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.loading import load
from mistral_mlx.prompt.template import render_chat
from mistral_mlx.sampling.sampler import Sampler
from mistral_mlx.session import saved as saved_session
from mistral_mlx.session.session import Session
from mistral_mlx.tokenizer.choose import load_tokenizer

MAX_INT32 = (1 << 31) - 1


class Header(Reader):
    """The header of a safetensors file."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.file = place / "x.safetensors"
        arrays = {f"{i}.weight": mx.array(np.ones((2, i + 1), np.float32)) for i in range(3)}
        mx.save_safetensors(str(self.file), arrays | {"half": mx.ones((4,), mx.float16)})
        text, self.data = split(self.file)
        self.header = json.loads(text)

    def __call__(self, rng: Random) -> None:
        join(self.file, dumped(mutated(self.header, rng), rng), self.data)
        if rng.random() < 0.1:
            self.file.write_bytes(damaged(self.file.read_bytes(), rng))
        size = self.file.stat().st_size
        for entry in read_header(self.file).values():
            assert 0 <= entry.start <= entry.start + entry.nbytes <= size, entry


class Index(Reader):
    """model.safetensors.index.json, and what it leads to."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        for name in ("a", "b"):
            mx.save_safetensors(str(place / f"{name}.safetensors"), {f"{name}{i}": mx.ones((i,)) for i in (1, 2)})
        places = {f"{name}{i}": f"{name}.safetensors" for name in "ab" for i in (1, 2)}
        self.index = {"metadata": {"total_size": 24}, "weight_map": places}
        self.folder = ModelFolder(place)

    def __call__(self, rng: Random) -> None:
        (self.place / INDEX_NAME).write_bytes(dumped(mutated(self.index, rng), rng))
        for entry in find_tensors(self.folder).values():
            assert entry.file.parent == self.place, entry


class Config(Reader):
    """config.json."""

    CONFIGS = (
        TINY,
        CONFIG,
        {**TINY, "quantization": {"group_size": 32, "bits": 4, "lm_head": {"group_size": 32, "bits": 8}}},
        {"text_config": {**TINY, "layer_types": ["full_attention", "sliding_attention"]}, "eos_token_id": [2, 3]},
        {**TINY, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "sliding_window": [8, None]},
    )

    def __call__(self, rng: Random) -> None:
        text = dumped(mutated(rng.choice(self.CONFIGS), rng), rng).decode("utf-8", "replace")
        args = ModelArgs.from_config(parse_json(text, name="config.json"))
        assert len(args.sliding_window) == args.n_layers
        assert max(max(shape) for shape in expected_shapes(args).values()) <= MAX_INT32
        json.dumps(text, allow_nan=False)


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


class JSONTokenizer(Reader):
    """tokenizer.json and the small files beside it."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        settings = {
            "eos_token": "</s>",
            "bos_token": {"content": "<s>"},
            "chat_template": CHATML,
            "add_bos_token": True,
        }
        self.settings = settings | {"added_tokens_decoder": {"2": {"content": "</s>", "special": True}}}
        self.documents = [_small(json.loads(text)) for text in (byte_level_json(), piece_json("llama"))]
        self.documents.append(_small(json.loads(piece_json("metaspace"))))

    def __call__(self, rng: Random) -> None:
        document, settings = rng.choice(self.documents), self.settings
        if rng.random() < 0.7:
            document = mutated(document, rng)
        else:
            settings = mutated(settings, rng)
        (self.place / "tokenizer.json").write_bytes(dumped(document, rng))
        (self.place / "tokenizer_config.json").write_bytes(dumped(settings, rng))
        _use(load_tokenizer(self.place))


class Tekken(Reader):
    """tekken.json."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.document = tiny_tekken()

    def __call__(self, rng: Random) -> None:
        (self.place / "tekken.json").write_bytes(dumped(mutated(self.document, rng), rng))
        _use(load_tokenizer(self.place))


class Sentencepiece(Reader):
    """tokenizer.model."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.model = train_tokenizer()

    def __call__(self, rng: Random) -> None:
        (self.place / "tokenizer.model").write_bytes(damaged(self.model, rng, whole=rng.random() < 0.7))
        _use(load_tokenizer(self.place))


def _small(document: dict) -> dict:
    """Leave most of the vocabulary out, so that changes hit the rest."""
    vocab = document["model"]["vocab"]
    document["model"]["vocab"] = {text: i for i, text in enumerate(list(vocab)[:290])}
    kept = document["model"]["vocab"]
    pairs = [merge if isinstance(merge, list) else merge.split(" ") for merge in document["model"]["merges"]]
    document["model"]["merges"] = [p for p in pairs if {*p, "".join(p)} <= kept.keys()]
    return document


def _use(tokenizer) -> None:
    """Texts go in and come out, and no control token is ever among their ids."""
    for text in ("Hello, <s>[INST] é", "  a\n"):
        ids = tokenizer.encode(text)
        assert not set(ids) & set(tokenizer.control.values())
        tokenizer.decode([*ids, tokenizer.vocab_size - 1, tokenizer.vocab_size])


class Template(Reader):
    """A chat template."""

    PIECES = (
        "{{ m.content }}", "{{ m['role'] }}", "{% set x = m %}", "{{ x * 99999 }}", "{{ [x] * 999 }}", "{{ x + x }}",
        "{{ messages | tojson }}", "{{ raise_exception(x) }}", "{{ strftime_now(x) }}", "{{ x.append }}", "{{ x % x }}",
        "{{ range(10 ** 9) }}", "{{ x ** 99 }}", "{% macro f(a) %}{{ f(a) }}{% endmacro %}", "{{ x[::0] }}",
        "{{ f(1) }}", "{{ namespace(a=1).a }}", "{{ loop.index }}", "{{ messages[0:99] | join(x) }}", "a text",
        "{{ x | replace('', x) }}", "{% set x = x + x + x %}", "{{ x | sort | unique | list }}", "{{ -x // 0 }}",
        "{{ x.split('') }}", "{{ x is divisibleby 0 }}", "{{ dict(a=x) }}", "{% set x = [x, x] %}",
        "{% set x = {'a': x} %}", "{{ x | length }}", "{{ x | string | upper }}", "{{ x | indent(9) }}",
    )  # fmt: skip
    BLOCKS = (
        "{% for m in messages %}~{% endfor %}", "{% if x %}~{% else %}~{% endif %}",
        "{% filter upper %}~{% endfilter %}", "{% for i in range(99) %}~{% endfor %}",
        "{% for x in x %}~{% endfor %}", "{% set x %}~{% endset %}", "~~",
    )  # fmt: skip

    def __call__(self, rng: Random) -> None:
        code = "{% set x = messages[0].content %}~"
        for _ in range(rng.randrange(8)):
            code = code.replace("~", rng.choice(self.BLOCKS), 1)
        while "~" in code:
            code = code.replace("~", rng.choice(self.PIECES), 1)
        if rng.random() < 0.2:
            at = rng.randrange(len(code))
            code = code[:at] + rng.choice(("{{", "}}", "{%", "(", ")", "|", "'", ".", *TEXTS)) + code[at + 1 :]
        messages = [{"role": "user", "content": rng.choice(TEXTS) * 3}, {"role": "assistant", "content": "a"}]
        text = render_chat(
            rng.choice((code, CHATML + code)),
            messages,
            add_generation_prompt=True,
            bos_token="<s>",
            eos_token=None,
        )
        assert len(text) < 10_000_000


class Saved(Reader):
    """A saved session, its cache and its settings."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.file = place / "s.json"
        self.model = load(write_tiny_folder(place / "model"))
        session = Session(*self.model)
        for _ in session.ask("Hello", AnswerOptions(max_tokens=3)):
            pass
        saved_session.save(session, self.file, {"model": "tiny", **ChatOptions().as_saved()})
        self.document = json.loads(self.file.read_text())
        self.cache = next(place.glob("*.safetensors"))
        self.cached = self.cache.read_bytes()

    def __call__(self, rng: Random) -> None:
        self.file.write_bytes(dumped(mutated(self.document, rng), rng))
        self.cache.write_bytes(damaged(self.cached, rng) if rng.random() < 0.1 else self.cached)
        for info in saved_session.list_sessions(self.place):
            info.saved_at.astimezone()
        session, settings = saved_session.load(self.file, *self.model)
        ChatOptions().restored(settings, given=frozenset()).sampler()
        assert session.system is None or isinstance(session.system, str)


class Model(Reader):
    """A whole folder, loaded and run where it is accepted: what the kernels are given."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.folder = write_tiny_folder(place / "model", num_hidden_layers=1)
        self.config = json.loads((self.folder / "config.json").read_text())

    def __call__(self, rng: Random) -> None:
        config = dict(self.config)
        for key in rng.sample(("hidden_size", "num_attention_heads", "num_key_value_heads", "head_dim"), 2):
            config[key] = rng.choice((2, 4, 8, 16, 32, 64, 96))
        config |= {
            "sliding_window": rng.choice((None, 1, 2, 8)),
            "rope_theta": rng.choice((1e-30, 1.0, 1e4, 1e4, 1e300)),
        }
        config |= {"rms_norm_eps": rng.choice((1e-300, 1e-5, 1e-5, 1e300))}
        shapes = {name: list(shape) for name, shape in expected_shapes(ModelArgs.from_config(config)).items()}
        header, end = {}, 0
        for name, shape in shapes.items():
            dtype = rng.choice(("F32", "F32", "F16", "BF16"))
            nbytes = int(np.prod(shape)) * (4 if dtype == "F32" else 2)
            header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [end, end + nbytes]}
            end += nbytes
        data = (b"\0\0\x80\x3f" * (1 + end // 4))[:end]  # 1 as float32, 0 and 1 or 1.875 as halves
        if rng.random() < 0.3:
            header = mutated(header, rng)
        if rng.random() < 0.3:
            config = mutated(config, rng)
        (self.folder / "config.json").write_bytes(json.dumps(config).encode())
        padding = b" " * rng.randrange(4)  # the data may begin at any byte
        join(self.folder / "model.safetensors", json.dumps(header).encode() + padding, data)
        model, tokenizer = load(self.folder)
        ids = tokenizer.encode("Hello there", bos=True)
        for _ in stream_generate(model, tokenizer, ids, sampler=Sampler(temperature=0.0), max_tokens=2):
            pass


class Kernels(Reader):
    """The native entry points, with shapes that do not fit."""

    expected = (ValueError, RuntimeError, TypeError, OSError)

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.file = place / "x"
        self.file.write_bytes(bytes(4096))

    def __call__(self, rng: Random) -> None:
        if rng.random() < 0.5:
            self._map(rng)
        else:
            self._multiply(rng)

    def _map(self, rng: Random) -> None:
        shape = tuple(rng.choice((1, 2, 3, 64, 1024, *NUMBERS)) for _ in range(rng.randrange(4)))
        start = rng.choice((0, 1, 100, 4095, 4096, *NUMBERS, -1))
        dtype = rng.choice((mx.float32, mx.float16, mx.uint32))
        for array in kernels.map_tensors(self.file, [(start, shape, dtype)]):
            mx.eval(array.sum() if array.ndim else array + 0)

    def _multiply(self, rng: Random) -> None:
        small = (1, 2, 4, 8, 16, 32, 64, 96, 128)
        dtypes = (mx.float32, mx.float16, mx.bfloat16, mx.uint32)
        n, k, groups = rng.choice(small), rng.choice(small), rng.choice(small)
        bits, group_size = rng.choice((2, 3, 4, 5, 6, 8, 7, 0, -4)), rng.choice((32, 64, 128, 0, -32, 48))
        words = max(1, k * abs(bits) // 32) if rng.random() < 0.8 else rng.choice(small)
        weight = mx.zeros((n, words), mx.uint32 if rng.random() < 0.9 else mx.float32)
        scales = mx.zeros((n, max(1, k // 32) if rng.random() < 0.7 else groups), rng.choice(dtypes))
        biases = mx.zeros(scales.shape if rng.random() < 0.8 else (n, groups), rng.choice((scales.dtype, *dtypes)))
        x = mx.zeros((rng.choice((1, 3)), k if rng.random() < 0.8 else rng.choice(small)))
        packed = kernels.Weight(weight, scales, biases, group_size, bits)
        plain = kernels.Weight(mx.zeros((n, k), rng.choice(dtypes)))
        mx.eval(kernels.products(x, [rng.choice((packed, plain))]))


class Folder(Reader):
    """A folder to convert, Hugging Face's or Mistral's, with a file of it changed."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        folders = (write_tiny_folder(place / "model", num_hidden_layers=1), write_native(place / "native"))
        self.folders = [(folder, {path.name: path.read_bytes() for path in folder.iterdir()}) for folder in folders]

    def __call__(self, rng: Random) -> None:
        folder, files = rng.choice(self.folders)
        name = rng.choice((*files, *("tokenizer_config.json", "generation_config.json") * (len(files) > 2)))
        if name.endswith(".json"):
            value = json.loads(files.get(name, b'{"eos_token_id": [2], "auto_map": {"a": "b"}}'))
            (folder / name).write_bytes(dumped(mutated(value, rng), rng))
        else:
            (folder / name).write_bytes(damaged(files[name], rng))
        try:
            plan = make_plan(open_source(folder), Choice(bits=rng.choice((None, 8)), group_size=32), None)
            json.dumps(plan.config, allow_nan=False)
        finally:
            (folder / name).unlink()
            if name in files:
                (folder / name).write_bytes(files[name])


READERS: dict[str, type[Reader]] = {
    "safetensors": Header,
    "index": Index,
    "config": Config,
    "gguf": GGUF,
    "tokenizer.json": JSONTokenizer,
    "tekken": Tekken,
    "tokenizer.model": Sentencepiece,
    "template": Template,
    "session": Saved,
    "folder": Folder,
    "model": Model,
    "kernels": Kernels,
    **SOURCE_READERS,
}

"""Cases for the readers of model folders: the weights, the config, and a whole folder."""

import json
from pathlib import Path
from random import Random

import mlx.core as mx
import numpy as np
from fuzz.mutations import damaged, dumped, mutated
from fuzz.reader import Reader
from helpers.convert_sources import CONFIG, write_native
from helpers.models import TINY
from helpers.tiny_folder import write_tiny_folder
from hostile.tensors import join, split
from oracles.graphs import LLAMA3

from mistral_mlx.convert.plan.choice import Choice
from mistral_mlx.convert.plan.plan import make_plan
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.files.json import parse_json
from mistral_mlx.files.safetensors import INDEX_NAME, find_tensors, read_header
from mistral_mlx.generation.stream import stream_generate
from mistral_mlx.model.args import ModelArgs, expected_shapes
from mistral_mlx.model.loading import load
from mistral_mlx.model.rope import rotation
from mistral_mlx.sampling.sampler import Sampler

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


YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 16.0,
    "original_max_position_embeddings": 16,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "llama_4_scaling_beta": 0.1,
}


class Config(Reader):
    """config.json."""

    CONFIGS = (
        TINY,
        CONFIG,
        {**TINY, "quantization": {"group_size": 32, "bits": 4, "lm_head": {"group_size": 32, "bits": 8}}},
        {"text_config": {**TINY, "layer_types": ["full_attention", "sliding_attention"]}, "eos_token_id": [2, 3]},
        {**TINY, "rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}, "sliding_window": [8, None]},
        {**TINY, "model_type": "ministral3", "rope_parameters": YARN},
        {**TINY, "model_type": "voxtral", "text_config": {**TINY, "rope_scaling": LLAMA3}},
    )

    def __call__(self, rng: Random) -> None:
        text = dumped(mutated(rng.choice(self.CONFIGS), rng), rng).decode("utf-8", "replace")
        args = ModelArgs.from_config(parse_json(text, name="config.json"))
        assert len(args.sliding_window) == args.n_layers
        rotation(args.head_dim, args.rope_theta, args.rope_scaling)
        assert max(max(shape) for shape in expected_shapes(args).values()) <= MAX_INT32
        json.dumps(text, allow_nan=False)


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
        if rng.random() < 0.3:
            scaled = YARN | {key: rng.choice((1e-300, 1.0, 3.0, 1e300)) for key in ("factor", "beta_fast", "mscale")}
            config |= {"model_type": "ministral3", "rope_parameters": scaled | {"rope_theta": config["rope_theta"]}}
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

"""Fuzzed readers of sources to convert: other layouts, packed weights, GGUF parts, adapters."""

import json
from pathlib import Path
from random import Random

import numpy as np
from fuzz.mutations import damaged, dumped, mutated
from fuzz.reader import Reader
from helpers.adapters import magnitudes, mlx_tensors, peft_tensors, write_mlx, write_peft
from helpers.convert_sources import CONFIG, write_native
from helpers.convert_sources import write_folder as write_source
from helpers.fp8_folders import BLOCKS, COMPRESSED, HF, NATIVE, fp8_folder
from helpers.gguf_files import write_parts
from helpers.grouped_folders import AWQ, GPTQ, packed_folder
from helpers.tiny_folder import write_tiny_folder

from mistral_mlx.convert import convert
from mistral_mlx.convert.plan.choice import Choice
from mistral_mlx.convert.plan.plan import make_plan
from mistral_mlx.convert.sources.adapters.adapter import with_adapter
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.convert.sources.source import Source
from mistral_mlx.generation.stream import stream_generate
from mistral_mlx.model.loading import load
from mistral_mlx.sampling.sampler import Sampler

SMALL = 1 << 16  # weights of a tensor that is unpacked


class Changed(Reader):
    """Folders of files, one of which is changed for a case and then put back."""

    def __init__(self, place: Path, *folders: Path) -> None:
        super().__init__(place)
        self.folders = [(folder, {path.name: path.read_bytes() for path in folder.iterdir()}) for folder in folders]

    def __call__(self, rng: Random) -> None:
        folder, files = rng.choice(self.folders)
        names = [name for name in files if not name.endswith(".index.json") and "token" not in name]
        name = rng.choice(names)
        (folder / name).write_bytes(self.changed(name, files[name], rng))
        try:
            self.read(folder, rng)
        finally:
            (folder / name).write_bytes(files[name])

    def changed(self, name: str, found: bytes, rng: Random) -> bytes:
        """Return the file `name` with a few changes of its structure."""
        if name.endswith(".json"):
            return dumped(mutated(json.loads(found), rng), rng)
        if not name.endswith(".safetensors") or rng.random() < 0.1:
            return damaged(found[:8192], rng, whole=True) + found[8192:]
        end = 8 + int.from_bytes(found[:8], "little")
        header, data = found[8:end], found[end:]
        if rng.random() < 0.4:
            return found[:end] + damaged(data, rng, whole=True)
        return self._resized(json.loads(header), data, rng)

    def _resized(self, header: dict, data: bytes, rng: Random) -> bytes:
        """Change an entry, and often the offsets of all so that the file is whole again."""
        header.pop("__metadata__", None)
        parts = {name: data[slice(*entry["data_offsets"])] for name, entry in header.items()}
        name = rng.choice(list(header))
        entry, end = header[name], 0
        match rng.randrange(5):
            case 0:
                return self._file(mutated(header, rng), data)
            case 1:
                entry["shape"] = rng.choice(([], [1], entry["shape"][::-1], [*entry["shape"], 1], [0, 4], [3, 5]))
            case 2:
                entry["dtype"] = rng.choice(("F32", "F16", "BF16", "I32", "U32", "U8", "I64", "F8_E4M3"))
            case 3:
                entry["shape"] = [max(0, n + rng.choice((-1, 1, n))) if type(n) is int else n for n in entry["shape"]]
            case 4:
                other = rng.choice(list(header))
                header[name], header[other] = header[other], header[name]
        content = []
        for key, value in header.items():
            sizes = {"F32": 4, "I32": 4, "U32": 4, "I64": 8, "U8": 1, "F8_E4M3": 1}
            nbytes = int(np.prod(value["shape"], dtype=np.int64)) * sizes.get(value["dtype"], 2)
            part = (parts[key] * (1 + nbytes // max(1, len(parts[key]))) + bytes(nbytes))[:nbytes]
            value["data_offsets"] = [end, end := end + nbytes]
            content.append(part)
        return self._file(header, b"".join(content))

    def _file(self, header: object, data: bytes) -> bytes:
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data

    def read(self, folder: Path, rng: Random) -> None:
        self.take(open_source(folder), rng)

    def take(self, source: Source, rng: Random) -> None:
        """Plan the conversion of `source` and unpack one of its weights."""
        asked = {"bits": rng.choice((None, None, 8)), "group_size": rng.choice((None, 32))}
        plan = make_plan(source, Choice(**asked), None)
        json.dumps(plan.config, allow_nan=False)
        step = rng.choice(plan.steps)
        tensor = step.tensor
        for array in tensor.storage.arrays:
            assert 0 <= array.start <= array.start + array.nbytes <= array.file.stat().st_size, tensor
        if tensor.size <= SMALL:
            for rows in tensor.blocks():
                raw = rows.weights().raw
                assert raw.shape[0] * raw.shape[1] <= 4 * tensor.size, tensor
                if step.carried:
                    rows.affine(step.dtype)


class Native(Changed):
    """params.json, the headers of consolidated.safetensors, and FP8 in them."""

    def __init__(self, place: Path) -> None:
        fp8_folder(place / "fp8", NATIVE, "tensor")
        super().__init__(place, write_native(place / "native"), place / "fp8")


class Grouped(Changed):
    """AWQ and GPTQ folders."""

    def __init__(self, place: Path) -> None:
        rules = [AWQ, GPTQ, {**GPTQ, "desc_act": True}, {**GPTQ, "bits": 8}, {**GPTQ, "bits": 2, "group_size": 32}]
        for i, rule in enumerate(rules):
            packed_folder(place / str(i), rule)
        super().__init__(place, *(place / str(i) for i in range(len(rules))))


class FP8(Changed):
    """FP8 folders of Hugging Face's and compressed-tensors."""

    def __init__(self, place: Path) -> None:
        fp8_folder(place / "blocks", HF._replace(rule=BLOCKS), "block")
        fp8_folder(place / "rows", COMPRESSED, "channel")
        super().__init__(place, place / "blocks", place / "rows")


class Parts(Changed):
    """GGUF files in three parts."""

    def __init__(self, place: Path) -> None:
        write_parts(place / "parts")
        super().__init__(place, place / "parts")

    def changed(self, name: str, found: bytes, rng: Random) -> bytes:
        del name
        return damaged(found[:2048], rng, whole=rng.random() < 0.8) + found[2048:]


class Adapter(Changed):
    """Adapter folders of PEFT's and mlx-lm's."""

    def __init__(self, place: Path) -> None:
        folders = [write_peft(place / "peft", rank_pattern={"q_proj": 4}, layers_to_transform=[0, 1])]
        folders.append(write_peft(place / "dora", peft_tensors(magnitudes()), use_dora=True))
        folders.append(write_mlx(place / "mlx"))
        folders.append(write_mlx(place / "mlx dora", mlx_tensors(magnitudes()), fine_tune_type="dora"))
        super().__init__(place, *folders)
        self.source = open_source(write_source(place / "base", CONFIG))

    def read(self, folder: Path, rng: Random) -> None:
        self.take(with_adapter(self.source, folder), rng)


class Modes(Changed):
    """Folders packed in the float modes, run for a token where they are accepted."""

    def __init__(self, place: Path) -> None:
        plain = write_tiny_folder(place / "plain", num_hidden_layers=1)
        for mode in ("mxfp4", "mxfp8", "nvfp4"):
            convert(plain, place / mode, mode=mode)
            (place / mode / "model.safetensors.index.json").unlink()
        super().__init__(place, *(place / mode for mode in ("mxfp4", "mxfp8", "nvfp4")))

    def read(self, folder: Path, rng: Random) -> None:
        if rng.random() < 0.5:
            self.take(open_source(folder), rng)
            return
        model, tokenizer = load(folder)
        for _ in stream_generate(model, tokenizer, [1, 5], sampler=Sampler(temperature=0.0), max_tokens=1):
            pass


SOURCE_READERS: dict[str, type[Reader]] = {
    "native": Native,
    "grouped": Grouped,
    "fp8": FP8,
    "parts": Parts,
    "adapter": Adapter,
    "modes": Modes,
}

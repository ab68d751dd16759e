"""The good folders that hostile cases copy, and the commands that run on each."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import mlx.core as mx
import numpy as np
from helpers.adapters import write_mlx, write_peft
from helpers.convert_sources import CONFIG, with_tokenizer, write_native
from helpers.convert_sources import write_folder as write_source
from helpers.fp8_folders import BLOCKS, COMPRESSED, HF, NATIVE, fp8_folder
from helpers.gguf_files import with_head, write_parts
from helpers.grouped_folders import AWQ, GPTQ, packed_folder
from helpers.mixtures import fused, per_expert
from helpers.models import tiny_config, tiny_weights, write_folder
from helpers.tiny_folder import write_tiny_folder
from helpers.tokenizer_files import CHATML, byte_level_json
from hostile.case import tiny_tekken

from mistral_mlx.convert import convert
from mistral_mlx.generation.answer import AnswerOptions
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import load
from mistral_mlx.session import saved as saved_session
from mistral_mlx.session.session import Session

BASES = {
    "plain": ("convert", "info", "complete"),
    "sharded": ("convert", "info", "complete"),
    "json": ("convert", "info", "complete"),
    "packed": ("info", "complete", "export", "eval"),
    "native": ("convert",),
    "tekken": ("convert", "complete"),
    "gguf": ("convert",),
    "session": ("chat",),
    "awq": ("carry",),
    "gptq": ("carry",),
    "scattered": ("convert",),  # GPTQ with desc_act
    "fp8": ("convert",),
    "compressed": ("convert",),
    "native fp8": ("convert",),
    "k-quants": ("carry",),
    "parts": ("convert",),
    "mxfp4": ("info", "complete"),
    "nvfp4": ("info", "complete"),
    "peft": ("merge",),
    "dora": ("merge",),
    "mlx adapter": ("merge",),
    "text": ("calibrate",),
    "experts": ("convert", "info", "complete"),  # of a mixture, a tensor for each matrix
    "fused": ("convert", "info", "complete"),  # all experts in one
}


def write_bases(place: Path) -> None:
    """Write a folder for each of BASES, the model in it being called "model"."""
    for base in BASES:
        (place / base).mkdir(parents=True)
    models = {base: place / base / "model" for base in BASES}
    _plain(models["plain"])
    _sharded(models["plain"], models["sharded"])
    write_native(models["native"], shards=2)
    convert(models["plain"], models["packed"], group_size=32)
    for mode in ("mxfp4", "nvfp4"):
        convert(models["plain"], models[mode], mode=mode)
        (models[mode] / "model.safetensors.index.json").unlink()
    _json(models["json"])
    _tekken(models["tekken"])
    _gguf(models["gguf"])
    _session(models["plain"], place / "session")
    packed_folder(models["awq"], AWQ)
    packed_folder(models["gptq"], GPTQ)
    packed_folder(models["scattered"], {**GPTQ, "desc_act": True})
    fp8_folder(models["fp8"], HF._replace(rule=BLOCKS), "block")
    fp8_folder(models["compressed"], COMPRESSED, "channel")
    fp8_folder(models["native fp8"], NATIVE, "tensor")
    models["k-quants"].mkdir()
    with_head(models["k-quants"] / "model.gguf", "Q4_K")
    write_parts(models["parts"])
    _adapters(models)
    _calibrated(models["text"])
    _mixture(models["experts"], per_expert)
    _mixture(models["fused"], fused)


def _plain(folder: Path) -> None:
    write_tiny_folder(folder)
    (folder / "generation_config.json").write_text('{"eos_token_id": 2}')
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')


def _mixture(folder: Path, layout: Callable[[dict], dict]) -> None:
    counts = {"num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": None}
    write_tiny_folder(folder, model_type="mixtral", **counts)
    weights = mx.load(str(folder / "model.safetensors"))
    (folder / "model.safetensors").unlink()
    changed = {name: mx.array(w) for name, w in layout({name: np.array(w) for name, w in weights.items()}).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), changed)


def _sharded(plain: Path, folder: Path) -> None:
    shutil.copytree(plain, folder)
    weights = dict(mx.load(str(folder / "model.safetensors")).items())
    (folder / "model.safetensors").unlink()
    names = {name: f"model-0000{1 + i % 2}-of-00002.safetensors" for i, name in enumerate(weights)}
    for file in sorted(set(names.values())):
        mx.save_safetensors(str(folder / file), {name: weights[name] for name in weights if names[name] == file})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))


def _json(folder: Path) -> None:
    config = tiny_config(vocab_size=600)
    settings = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    tokenizer = {"tokenizer.json": json.loads(byte_level_json()), "tokenizer_config.json": settings}
    write_folder(folder, config, tiny_weights(ModelArgs.from_config(config)), files=tokenizer)
    for name in ("special_tokens_map.json", "added_tokens.json"):
        (folder / name).write_text("{}")


def _tekken(folder: Path) -> None:
    config = tiny_config(vocab_size=278)
    write_folder(folder, config, tiny_weights(ModelArgs.from_config(config)))
    (folder / "tekken.json").write_text(json.dumps(tiny_tekken()))


def _gguf(folder: Path) -> None:
    folder.mkdir()
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"etaoinshr"]
    kinds = [2, 3, 3, *[6] * 256, *[1] * 10]
    with_tokenizer(folder / "model.gguf", "llama", tokens, kinds, scores=[0.0] * len(tokens))


def _session(plain: Path, place: Path) -> None:
    shutil.copytree(plain, place / "model")
    session = Session(*load(place / "model"))
    for _ in session.ask("Hello", AnswerOptions(max_tokens=3)):
        pass
    (place / "home" / "sessions").mkdir(parents=True)
    saved_session.save(session, place / "home" / "sessions" / "s.json", {"model": "tiny", "top_k": 3})


def _adapters(models: dict[str, Path]) -> None:
    """Adapters, the model of each in the folder "base" beside it."""
    from helpers.adapters import magnitudes, peft_tensors

    writers: dict[str, Callable[[Path], Path]] = {
        "peft": write_peft,
        "dora": lambda path: write_peft(path, peft_tensors(magnitudes()), use_dora=True),
        "mlx adapter": write_mlx,
    }
    for base, write in writers.items():
        write(models[base])
        write_source(models[base].parent / "base", CONFIG)


def _calibrated(folder: Path) -> None:
    """A model with few positions, so that a short text is enough."""
    write_tiny_folder(folder, max_position_embeddings=32)

"""Exported GGUF files, read by the gguf library and converted back."""

import json
import subprocess
import sys
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from helpers.convert_sources import (
    CONFIG,
    add_weights,
    close,
    gguf_name,
    gguf_writer,
    permuted,
    random_weights,
    write_folder,
)
from helpers.gguf_contents import metadata, tensors
from helpers.mixtures import MIXTRAL, weights_of, write_gguf

from mistral_mlx.convert import convert
from mistral_mlx.convert.export.gguf_export import export_gguf
from mistral_mlx.convert.sources.source import BLOCK_WEIGHTS
from mistral_mlx.errors import ConversionError

KINDS = {"model.embed_tokens.weight": "Q8_0", "lm_head.weight": "F16", "model.layers.1.mlp.up_proj.weight": "Q4_0"}


def as_stored_by_llama_cpp(kind: str) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """The random weights as llama.cpp's own converter would store them, norms in float32."""
    found = {}
    for name, weight in random_weights(CONFIG).items():
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        rows = permuted(weight, heads) if heads else weight
        stored = "F32" if weight.ndim == 1 else kind
        data = gguf.quants.quantize(rows, GGMLQuantizationType[stored])
        found[gguf_name(name)] = (stored, weight.shape[::-1], data.tobytes())
    return found


@pytest.mark.parametrize("outtype", ["auto", "f32", "f16", "bf16", "q8_0"])
def test_plain_weights_are_stored_to_the_bit_as_llama_cpp_does(tmp_path: Path, folder: Path, outtype: str) -> None:
    report = export_gguf(folder, tmp_path / "x.gguf", outtype=outtype)
    kind = "F32" if outtype == "auto" else outtype.upper()
    assert tensors(tmp_path / "x.gguf") == as_stored_by_llama_cpp(kind)
    assert (report.nbytes, report.carried) == ((tmp_path / "x.gguf").stat().st_size, 0)


def test_four_bits_spare_the_embedding_and_the_head(tmp_path: Path, folder: Path) -> None:
    export_gguf(folder, tmp_path / "x.gguf", outtype="q4_1")
    ends = {name: as_stored_by_llama_cpp("Q8_0")[name] for name in ("token_embd.weight", "output.weight")}
    assert tensors(tmp_path / "x.gguf") == as_stored_by_llama_cpp("Q4_1") | ends


def test_a_gguf_comes_back_to_the_byte_through_a_model_folder(tmp_path: Path) -> None:
    writer = gguf_writer(tmp_path / "a.gguf")
    weights = random_weights(CONFIG)
    add_weights(writer, weights, dict.fromkeys(weights, "Q4_1") | KINDS)
    convert(close(writer), tmp_path / "folder")
    report = export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    assert tensors(tmp_path / "b.gguf") == tensors(tmp_path / "a.gguf")
    assert (report.carried, report.rounding) == (15, 0)
    assert dict(report.kinds) == {"Q4_1": 13, "F32": 5, "Q8_0": 1, "F16": 1, "Q4_0": 1}


@pytest.mark.parametrize(("bits", "group_size"), [(4, 32), (4, 64), (4, 128)])
def test_groups_of_mlx_are_the_same_weights_in_a_gguf(tmp_path: Path, folder: Path, bits: int, group_size: int) -> None:
    convert(folder, tmp_path / "packed", bits=bits, group_size=group_size, dtype="float16")
    export_gguf(tmp_path / "packed", tmp_path / "x.gguf")
    made = mx.load(str(tmp_path / "packed" / "model.safetensors"))
    for tensor in GGUFReader(tmp_path / "x.gguf").tensors:
        name = {gguf_name(name): name for name in random_weights(CONFIG)}[tensor.name]
        path = name.removesuffix(".weight")
        if f"{path}.scales" not in made:
            continue
        scales, biases = (made[f"{path}.{part}"].astype(mx.float32) for part in ("scales", "biases"))
        expected = np.array(mx.dequantize(made[name], scales, biases, group_size=group_size, bits=bits))
        heads = {"q_proj": 4, "k_proj": 2}.get(name.split(".")[-2])
        found = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        np.testing.assert_array_equal(found, permuted(expected, heads) if heads else expected, err_msg=name)


def test_what_was_exported_converts_into_the_same_folder(tmp_path: Path, folder: Path) -> None:
    convert(folder, tmp_path / "packed", bits=4, group_size=32, dtype="float16")
    export_gguf(tmp_path / "packed", tmp_path / "x.gguf")
    convert(tmp_path / "x.gguf", tmp_path / "again")
    first, second = (mx.load(str(tmp_path / name / "model.safetensors")) for name in ("packed", "again"))
    assert set(first) == set(second)
    assert [name for name in first if not mx.array_equal(first[name], second[name])] == []


def test_eight_bits_with_a_bias_of_their_own_become_float16_and_this_is_said(tmp_path: Path, folder: Path) -> None:
    convert(folder, tmp_path / "packed", bits=8, dtype="float16")
    report = export_gguf(tmp_path / "packed", tmp_path / "x.gguf")
    assert report.kinds == {"F16": 16, "F32": 5} and report.carried == 0
    assert report.notes[1].startswith("16 packed tensors (8 bits) are in no form that is carried over and become F16")


def test_scales_that_are_not_exact_in_float16_are_rounded_and_the_bound_holds(tmp_path: Path, folder: Path) -> None:
    convert(folder, tmp_path / "packed", bits=4, group_size=32, dtype="float32")
    report = export_gguf(tmp_path / "packed", tmp_path / "x.gguf")
    made = mx.load(str(tmp_path / "packed" / "model.safetensors"))
    parts = (made[f"model.layers.0.mlp.up_proj.{part}"] for part in ("weight", "scales", "biases"))
    exact = np.array(mx.dequantize(*parts, group_size=32, bits=4))
    found = next(t for t in GGUFReader(tmp_path / "x.gguf").tensors if t.name == "blk.0.ffn_up.weight")
    moved = np.abs(gguf.quants.dequantize(found.data, found.tensor_type) - exact).max()
    assert 0 < moved <= report.rounding < 1e-3
    assert any("scales were rounded to float16" in note for note in report.notes)


def test_a_scale_beyond_float16_is_no_reason_to_write_infinity(tmp_path: Path) -> None:
    weights = {name: mx.array(w) * (1e7 if "up_proj" in name else 1) for name, w in random_weights(CONFIG).items()}
    convert(write_folder(tmp_path / "large", weights=weights), tmp_path / "packed", dtype="float32")
    with pytest.raises(ConversionError, match="more than F16 can; use --outtype bf16 or f32"):
        export_gguf(tmp_path / "packed", tmp_path / "x.gguf")
    export_gguf(tmp_path / "packed", tmp_path / "x.gguf", outtype="f32")


def test_rows_that_blocks_do_not_divide_are_written_as_float16(tmp_path: Path) -> None:
    config = {**CONFIG, "intermediate_size": 172}
    report = export_gguf(write_folder(tmp_path / "odd", config), tmp_path / "x.gguf", outtype="q8_0")
    assert {n for n, (kind, *_) in tensors(tmp_path / "x.gguf").items() if kind == "F16"} == {
        "blk.0.ffn_down.weight",
        "blk.1.ffn_down.weight",
    }
    assert report.notes[-1] == "2 tensors are written as F16: their rows are no multiple of 32"


def test_the_architecture_is_described_as_llama_cpp_reads_it(tmp_path: Path) -> None:
    config = {**CONFIG, "sliding_window": 48, "rope_theta": 1e6, "tie_word_embeddings": True}
    report = export_gguf(write_folder(tmp_path / "mistral", config), tmp_path / "x.gguf")
    assert metadata(tmp_path / "x.gguf") == {
        "general.architecture": "llama", "general.type": "model", "general.name": "mistral",
        "general.size_label": "0M", "general.file_type": 0, "general.quantization_version": 2,
        "llama.block_count": 2, "llama.context_length": 512, "llama.embedding_length": 128,
        "llama.feed_forward_length": 256, "llama.attention.head_count": 4, "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 32, "llama.attention.value_length": 32,
        "llama.attention.layer_norm_rms_epsilon": pytest.approx(1e-5), "llama.attention.sliding_window": 48,
        "llama.rope.dimension_count": 32, "llama.rope.freq_base": 1e6, "llama.vocab_size": 64,
        "tokenizer.ggml.model": "no_vocab",
    }  # fmt: skip
    assert "output.weight" not in tensors(tmp_path / "x.gguf")
    assert any("behind 48 tokens it attends to more" in note for note in report.notes)


@pytest.mark.parametrize(("key", "value"), [("rope_theta", 1e300), ("rms_norm_eps", 1e-60)])
def test_a_number_that_a_gguf_cannot_store_is_refused_by_its_key(tmp_path: Path, key: str, value: float) -> None:
    """It ended as a bug, an OverflowError, or was written as 0."""
    with pytest.raises(ConversionError, match=rf"{key} is 1e[-+]\d+, which a GGUF file cannot store"):
        export_gguf(write_folder(tmp_path / "model", {**CONFIG, key: value}), tmp_path / "x.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_large_matrix_goes_through_in_blocks(tmp_path: Path) -> None:
    config = {**CONFIG, "vocab_size": 16384, "num_hidden_layers": 1, "tie_word_embeddings": True}
    seen: list[int] = []
    export_gguf(write_folder(tmp_path / "large", config), tmp_path / "x.gguf", progress=lambda *at: seen.append(at[1]))
    assert max(np.diff([0, *seen])) == BLOCK_WEIGHTS * 4 < 16384 * 128 * 4


def test_the_command_writes_what_its_report_says(tmp_path: Path, folder: Path) -> None:
    program = [sys.executable, "-c", "from mistral_mlx.cli.main import main; main()", "export", str(folder)]
    arguments = [str(tmp_path / "x.gguf"), "--outtype", "q8_0", "--json"]
    done = subprocess.run([*program, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (0, "")
    assert report["nbytes"] == (tmp_path / "x.gguf").stat().st_size and report["kinds"] == {"Q8_0": 16, "F32": 5}
    again = subprocess.run([*program, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert (again.returncode, again.stdout) == (5, "") and again.stderr.count("\n") == 1


@pytest.mark.parametrize("change", [{}, {"num_experts_per_tok": 4, "num_local_experts": 5}])
def test_experts_are_stacked_as_llama_cpp_does(tmp_path: Path, change: dict[str, int]) -> None:
    config = MIXTRAL | change
    weights = weights_of(config)
    folder = write_folder(tmp_path / "folder", config, weights={name: mx.array(w) for name, w in weights.items()})
    write_gguf(tmp_path / "theirs.gguf", weights, "F16", config=config)
    export_gguf(folder, tmp_path / "ours.gguf", outtype="f16")
    assert tensors(tmp_path / "ours.gguf") == tensors(tmp_path / "theirs.gguf")
    found = metadata(tmp_path / "ours.gguf")
    assert found["llama.expert_count"] == config["num_local_experts"]
    assert found["llama.expert_used_count"] == config["num_experts_per_tok"]
    assert found["general.size_label"] == f"{config['num_local_experts']}x0M"


@pytest.mark.parametrize("kind", ["Q4_0", "Q5_1", "Q8_0", "F16"])
def test_experts_come_back_to_the_byte(tmp_path: Path, kind: str) -> None:
    write_gguf(tmp_path / "a.gguf", weights_of(), kind)
    convert(tmp_path / "a.gguf", tmp_path / "folder", **({"dequantize": True} if kind == "F16" else {}))
    export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    assert tensors(tmp_path / "b.gguf") == tensors(tmp_path / "a.gguf")


def test_a_packed_router_is_unpacked_into_float32(tmp_path: Path) -> None:
    weights = weights_of()
    source = write_folder(tmp_path / "source", MIXTRAL, weights={name: mx.array(w) for name, w in weights.items()})
    convert(source, tmp_path / "packed", bits=4, dtype="float16", rules=["moe.gate$=8"])
    report = export_gguf(tmp_path / "packed", tmp_path / "x.gguf")
    assert report.notes == ["no tokenizer was found: the file works with token ids only"]
    convert(tmp_path / "x.gguf", tmp_path / "again", dequantize=True, dtype="float32")
    convert(tmp_path / "packed", tmp_path / "plain", dequantize=True, dtype="float32")
    first, second = (mx.load(str(tmp_path / name / "model.safetensors")) for name in ("plain", "again"))
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_allclose(np.array(second[name]), np.array(array), atol=1e-5, err_msg=name)

"""Exported GGUF files, read by the gguf library and converted back."""

import errno
import io
import json
import os
import signal
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
    bytes_to_unicode,
    close,
    gguf_name,
    gguf_writer,
    permuted,
    random_weights,
    with_tokenizer,
    write_folder,
)
from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

from mistral_mlx.convert import convert
from mistral_mlx.convert.export import gguf_writer as writer_module
from mistral_mlx.convert.export.gguf_export import export_gguf
from mistral_mlx.convert.sources.source import BLOCK_WEIGHTS
from mistral_mlx.errors import CheckpointError, ConversionError, OptionError

KINDS = {"model.embed_tokens.weight": "Q8_0", "lm_head.weight": "F16", "model.layers.1.mlp.up_proj.weight": "Q4_0"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A plain float32 folder of Hugging Face."""
    return write_folder(tmp_path / "plain")


def tensors(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    found = GGUFReader(path).tensors
    return {t.name: (t.tensor_type.name, tuple(map(int, t.shape)), t.data.tobytes()) for t in found}


def metadata(path: Path) -> dict[str, object]:
    fields = GGUFReader(path).fields
    return {name: field.contents() for name, field in fields.items() if not name.startswith("GGUF.")}


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


@pytest.fixture(scope="module")
def sentencepiece() -> SentencePieceProcessor:
    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["once upon a time there was a little girl", "she was in the park 123"] * 20),
        model_writer=model, vocab_size=300, model_type="bpe", byte_fallback=True, minloglevel=2,
        user_defined_symbols=["<sep>"], control_symbols=["[INST]"],
    )  # fmt: skip
    return SentencePieceProcessor(model_proto=model.getvalue())


def test_a_sentencepiece_vocabulary_is_written_piece_by_piece(
    tmp_path: Path, sentencepiece: SentencePieceProcessor
) -> None:
    source = write_folder(tmp_path / "mistral", {**CONFIG, "vocab_size": 304})
    (source / "tokenizer.model").write_bytes(sentencepiece.serialized_model_proto())
    (source / "added_tokens.json").write_text(json.dumps({"<|im_end|>": 301, "plain": 302}))
    settings = {"eos_token": "<|im_end|>", "chat_template": "{{ x }}", "bos_token": "<s>"}
    (source / "tokenizer_config.json").write_text(json.dumps(settings))
    export_gguf(source, tmp_path / "x.gguf", outtype="q8_0")
    found = metadata(tmp_path / "x.gguf")
    tokens, scores, types = (found[f"tokenizer.ggml.{key}"] for key in ("tokens", "scores", "token_type"))
    assert tokens == [
        *(sentencepiece.id_to_piece(i) for i in range(300)), "[PAD300]", "<|im_end|>", "plain", "[PAD303]"
    ]  # fmt: skip
    assert scores[:300] == [sentencepiece.get_score(i) for i in range(300)]
    special = [types[sentencepiece.piece_to_id(piece)] for piece in ("<unk>", "<s>", "</s>", "[INST]", "<sep>")]
    assert special == [2, 3, 3, 3, 4] and types[300:] == [5, 3, 4, 5]
    assert [types.count(kind) for kind in (1, 6)] == [300 - 256 - 5, 256]
    rest = {key: value for key, value in found.items() if key.startswith("tokenizer") and type(value) is not list}
    assert rest == {
        "tokenizer.ggml.model": "llama", "tokenizer.ggml.pre": "default", "tokenizer.ggml.add_space_prefix": True,
        "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 301, "tokenizer.ggml.eot_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False, "tokenizer.chat_template": "{{ x }}",
    }  # fmt: skip


@pytest.mark.parametrize("pre", ["gpt-2", "smollm", "llama-bpe", "tekken"])
def test_a_byte_level_vocabulary_comes_back_with_the_name_of_its_cut(tmp_path: Path, pre: str) -> None:
    tokens = ["<|start|>", "<|end|>", *bytes_to_unicode(), "aa", "bb", "aabb", "[plain]"]
    kinds = [3, 3, *[1] * 259, 4]
    keys: dict[str, object] = {"merges": ["a a", "b b"], "pre": pre, "bos_token_id": 0, "eos_token_id": 1}
    first = with_tokenizer(tmp_path / "a.gguf", "gpt2", tokens, kinds, add_bos_token=True, **keys)
    convert(first, tmp_path / "folder")
    report = export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    before, after = metadata(first), metadata(tmp_path / "b.gguf")
    assert {key: after[key] for key in before if key.startswith("tokenizer")} == {
        key: value for key, value in before.items() if key.startswith("tokenizer")
    }
    assert report.notes == []


def test_a_byte_level_vocabulary_without_merges_comes_back(tmp_path: Path) -> None:
    """It ended as a bug, an IndexError: the type of a list in a GGUF file was that of its first item."""
    tokens = [*bytes_to_unicode(), "aa"]
    path = with_tokenizer(tmp_path / "a.gguf", "gpt2", tokens, [1] * 257, merges=["a a"], pre="gpt-2")
    convert(path, tmp_path / "folder")
    file = tmp_path / "folder" / "tokenizer.json"
    document = json.loads(file.read_text())
    document["model"]["merges"] = []
    file.write_text(json.dumps(document))
    export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    convert(tmp_path / "b.gguf", tmp_path / "back")
    assert json.loads((tmp_path / "back" / "tokenizer.json").read_text())["model"] == document["model"]


@pytest.mark.parametrize(("key", "value"), [("rope_theta", 1e300), ("rms_norm_eps", 1e-60)])
def test_a_number_that_a_gguf_cannot_store_is_refused_by_its_key(tmp_path: Path, key: str, value: float) -> None:
    """It ended as a bug, an OverflowError, or was written as 0."""
    with pytest.raises(ConversionError, match=rf"{key} is 1e[-+]\d+, which a GGUF file cannot store"):
        export_gguf(write_folder(tmp_path / "model", {**CONFIG, key: value}), tmp_path / "x.gguf")
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


def test_a_stop_id_that_no_row_has_is_left_out(tmp_path: Path) -> None:
    """It ended as a bug, a struct.error, if it was too large for the file."""
    tokens = [*bytes_to_unicode(), "aa"]
    path = with_tokenizer(tmp_path / "a.gguf", "gpt2", tokens, [1] * 257, merges=["a a"], pre="gpt-2")
    convert(path, tmp_path / "folder")
    file = tmp_path / "folder" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "eos_token_id": [7, 10**12]}))
    export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    assert metadata(tmp_path / "b.gguf")["tokenizer.ggml.eos_token_id"] == 7


def test_a_cut_without_a_name_is_said(tmp_path: Path) -> None:
    tokens = [*bytes_to_unicode(), "aa"]
    path = with_tokenizer(tmp_path / "a.gguf", "gpt2", tokens, [1] * 257, merges=["a a"], pre="llama-bpe")
    convert(path, tmp_path / "folder")
    file = tmp_path / "folder" / "tokenizer.json"
    document = json.loads(file.read_text())
    document["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "a+"
    file.write_text(json.dumps(document))
    report = export_gguf(tmp_path / "folder", tmp_path / "b.gguf")
    assert metadata(tmp_path / "b.gguf")["tokenizer.ggml.pre"] == "default"
    assert "no name for here (a+)" in report.notes[0]


def test_pieces_with_merges_get_scores_in_the_order_of_merging(tmp_path: Path) -> None:
    vocab = ["<unk>", "<s>", "</s>", "<0x0A>", "▁", "a", "b", "▁a", "ab", "zz"]
    document = {
        "model": {
            "type": "BPE", "vocab": {piece: i for i, piece in enumerate(vocab)}, "merges": ["▁ a", "a b"],
            "unk_token": "<unk>", "byte_fallback": True, "fuse_unk": True,
        },
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"}, {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
            {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "added_tokens": [{"id": i, "content": vocab[i], "special": True} for i in range(3)],
    }  # fmt: skip
    source = write_folder(tmp_path / "llama", {**CONFIG, "vocab_size": 10})
    (source / "tokenizer.json").write_text(json.dumps(document))
    export_gguf(source, tmp_path / "x.gguf")
    found = metadata(tmp_path / "x.gguf")
    assert found["tokenizer.ggml.model"] == "llama" and found["tokenizer.ggml.add_space_prefix"] is True
    assert found["tokenizer.ggml.token_type"] == [2, 3, 3, 6, 1, 1, 1, 1, 1, 1]
    assert found["tokenizer.ggml.scores"][7:] == [0.0, -1.0, -2.0]


def test_a_tokenizer_larger_than_the_embedding_is_refused(
    tmp_path: Path, folder: Path, sentencepiece: SentencePieceProcessor
) -> None:
    (folder / "tokenizer.model").write_bytes(sentencepiece.serialized_model_proto())
    with pytest.raises(ConversionError, match="the tokenizer has 300 tokens and the embedding only 64 rows"):
        export_gguf(folder, tmp_path / "x.gguf")


def test_nan_leaves_nothing(tmp_path: Path) -> None:
    weights = {name: mx.array(w) for name, w in random_weights(CONFIG).items()}
    weights["model.norm.weight"][3] = float("nan")
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight holds NaN"):
        export_gguf(write_folder(tmp_path / "bad", weights=weights), tmp_path / "x.gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["bad"]


def test_an_existing_file_stays_without_overwrite_and_only_a_gguf_is_replaced(tmp_path: Path, folder: Path) -> None:
    target = tmp_path / "x.gguf"
    target.write_bytes(b"mine")
    for overwrite, message in ((False, "exists"), (True, "is not a GGUF file, so it is never replaced")):
        with pytest.raises(ConversionError, match=message):
            export_gguf(folder, target, overwrite=overwrite)
    assert target.read_bytes() == b"mine"
    target.write_bytes(b"GGUF of old")
    export_gguf(folder, target, overwrite=True)
    assert len(tensors(target)) == 21
    with pytest.raises(OptionError, match="outtype is q3"):
        export_gguf(folder, target, outtype="q3", overwrite=True)


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", ["FIFO", "link", "dangling link", "directory"])
def test_what_is_no_plain_file_is_never_replaced(tmp_path: Path, folder: Path, kind: str, overwrite: bool) -> None:
    (tmp_path / "old.gguf").write_bytes(b"GGUF of old")
    target = tmp_path / "x.gguf"
    leads_to = {"link": "old.gguf", "dangling link": "gone.gguf"}
    if kind == "FIFO":
        os.mkfifo(target)
    elif kind == "directory":
        target.mkdir()
    else:
        target.symlink_to(leads_to[kind])
    before, there = target.lstat(), sorted(tmp_path.iterdir())
    with pytest.raises(ConversionError, match="is never replaced" if overwrite else "exists"):
        export_gguf(folder, target, overwrite=overwrite)
    assert (target.lstat().st_ino, target.lstat().st_mode) == (before.st_ino, before.st_mode)
    assert sorted(tmp_path.iterdir()) == there and (tmp_path / "old.gguf").read_bytes() == b"GGUF of old"


def test_a_full_disk_leaves_the_old_file_and_says_so(
    tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF of old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writer_module, "write_all", full)
    with pytest.raises(ConversionError, match="the disk is full"):
        export_gguf(folder, tmp_path / "x.gguf", overwrite=True)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "x.gguf"]
    assert (tmp_path / "x.gguf").read_bytes() == b"GGUF of old"


CHILD = """
import sys, time
from mistral_mlx.convert.export.gguf_export import export_gguf

def progress(name, done, total):
    if done > total // 2:
        print("half", flush=True)
        time.sleep(60)

export_gguf(sys.argv[1], sys.argv[2], progress=progress)
"""


@pytest.mark.parametrize(("number", "left"), [(signal.SIGINT, 0), (signal.SIGKILL, 1)])
def test_a_signal_leaves_no_file_and_the_next_run_clears_up(
    tmp_path: Path, folder: Path, number: signal.Signals, left: int
) -> None:
    command = [sys.executable, "-c", CHILD, str(folder), str(tmp_path / "x.gguf")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as child:
        assert child.stdout is not None and child.stdout.readline() == "half\n"
        child.send_signal(number)
        child.wait(30)
    hidden = [p.name for p in tmp_path.iterdir() if p.name.startswith(".x.gguf.partial")]
    assert len(hidden) == left and not (tmp_path / "x.gguf").exists()
    export_gguf(folder, tmp_path / "x.gguf")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["plain", "x.gguf"]


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

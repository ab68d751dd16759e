"""Mapped weights: the same model, no copy in memory, and safe if the file changes."""

import os
import re
import struct
import subprocess
import sys
import time
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_config, tiny_weights, write_folder

from mistral_mlx import kernels
from mistral_mlx.errors import ModelError
from mistral_mlx.kernels.memory import SPARE_BYTES, copies_fit
from mistral_mlx.model import loading
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.loading import load_model

pytestmark = pytest.mark.skipif(not kernels.maps_files(), reason="needs the native kernels, and no GPU")

IDS = mx.array(np.random.default_rng(1).integers(0, 64, (1, 9)))
MB = 1 << 20


@pytest.fixture
def folder(tmp_path):
    return write_packed(tmp_path / "model", seed=0)


def write_packed(path, *, seed):
    """Write a tiny 4-bit folder, one projection left in float16."""
    config = tiny_config(quantization={"group_size": 32, "bits": 4})
    weights = {}
    for name, w in tiny_weights(ModelArgs.from_config(config), seed=seed).items():
        if w.ndim == 1 or "v_proj" in name:
            weights[name] = mx.array(w).astype(mx.float16)
        else:
            module = name.removesuffix(".weight")
            parts = mx.quantize(mx.array(w).astype(mx.bfloat16), group_size=32, bits=4)
            weights |= dict(zip((name, f"{module}.scales", f"{module}.biases"), parts, strict=True))
    return write_folder(path, config, weights)


def write_large(path):
    """Write a plain bfloat16 folder of 48 MB."""
    config = tiny_config(hidden_size=512, intermediate_size=8192)
    weights = tiny_weights(ModelArgs.from_config(config))
    return write_folder(path, config, {name: mx.array(w).astype(mx.bfloat16) for name, w in weights.items()})


def logits(model):
    return np.array(model(IDS)).tobytes()


def memory(key):
    """Return one line of what Linux says of this process's memory, in bytes; anonymous is what is no file's."""
    text = Path("/proc/self/smaps_rollup").read_text()
    return int(re.search(rf"{key}: +(\d+) kB", text)[1]) * 1024


def resident(folder):
    """Return the bytes of the files of a folder that this process has in memory."""
    parts = re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path("/proc/self/smaps").read_text())
    return sum(int(re.search(r"Rss: +(\d+) kB", part)[1]) * 1024 for part in parts if str(folder) in part)


def test_mapped_weights_give_the_bits_of_weights_that_were_read(folder, monkeypatch):
    mapped = logits(load_model(folder))
    monkeypatch.setattr(kernels, "maps_files", lambda: False)
    assert logits(load_model(folder)) == mapped


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_weights_are_not_copied_by_loading_nor_by_a_forward_pass_that_may_not(tmp_path, monkeypatch):
    monkeypatch.setattr("mistral_mlx.kernels.memory.COPY_WEIGHTS", "0")
    large = write_large(tmp_path / "large")
    before = memory("Anonymous")
    model = load_model(large)
    logits(model)
    assert memory("Anonymous") - before < 12 * MB
    assert sum(p.stat().st_size for p in large.iterdir()) > 48 * MB


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_forward_pass_holds_the_weights_once(tmp_path):
    large = write_large(tmp_path / "large")
    model = load_model(large)
    before = memory("Anonymous")
    logits(model)
    assert 40 * MB < memory("Anonymous") - before < 64 * MB
    assert resident(large) < 20 * MB


def test_copies_of_the_weights_give_the_same_bits(folder, monkeypatch):
    results = set()
    for copy in "01":
        monkeypatch.setattr("mistral_mlx.kernels.memory.COPY_WEIGHTS", copy)
        results.add(logits(load_model(folder)))
    assert len(results) == 1


def test_weights_are_copied_where_they_lie_in_a_file_and_there_is_room(folder, monkeypatch):
    weights = [load_model(folder).lm_head.parts]
    assert copies_fit(weights)
    assert not copies_fit([kernels.Weight(mx.zeros((4, 4)))])
    monkeypatch.setattr("mistral_mlx.kernels.memory.available_memory", lambda: SPARE_BYTES)
    assert not copies_fit(weights)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_file_is_let_go_with_the_last_of_its_arrays(folder):
    model = load_model(folder)
    norm = model.model.norm.weight
    del model
    assert str(folder) in Path("/proc/self/maps").read_text()
    assert np.isfinite(np.array(norm)).all()
    del norm
    end = time.monotonic() + 10  # a thread of MLX may still hold an array of its last task
    while str(folder) in Path("/proc/self/maps").read_text():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.mark.parametrize("n_spaces", range(1, 5))
def test_weights_may_begin_at_any_byte(folder, n_spaces):
    """Some writers do not pad the header to a multiple of 8."""
    expected = logits(load_model(folder))
    path = folder / "model.safetensors"
    data = path.read_bytes()
    n = struct.unpack("<Q", data[:8])[0]
    path.write_bytes(struct.pack("<Q", n + n_spaces) + data[8 : 8 + n] + b" " * n_spaces + data[8 + n :])
    assert logits(load_model(folder)) == expected


@pytest.mark.parametrize("n_bytes", [1, 4000])
def test_a_file_cut_short_while_it_is_opened_is_an_error(folder, monkeypatch, n_bytes):
    def cut(*arguments):
        found = inspect(*arguments)
        path = folder / "model.safetensors"
        os.truncate(path, path.stat().st_size - n_bytes)
        return found

    inspect = loading.inspect_model
    monkeypatch.setattr(loading, "inspect_model", cut)
    with pytest.raises(ModelError, match=r"model\.safetensors.* cannot be read: .*shorter"):
        load_model(folder)


@pytest.mark.parametrize("start", [-4, 97, 1 << 40, -(1 << 63)])
def test_what_lies_outside_the_file_is_refused(tmp_path, start):
    (tmp_path / "file").write_bytes(bytes(100))
    with pytest.raises(ValueError, match="shorter"):
        kernels.map_tensors(tmp_path / "file", [(start, (1,), mx.uint32)])


def test_what_is_no_file_is_an_error(tmp_path):
    with pytest.raises(OSError, match="No such file"):
        kernels.map_tensors(tmp_path / "none", [])
    (tmp_path / "empty").touch()
    with pytest.raises(RuntimeError, match="mmap"):
        kernels.map_tensors(tmp_path / "empty", [])


def test_writing_into_an_array_does_not_reach_the_file(folder):
    before = (folder / "model.safetensors").read_bytes()
    weight = load_model(folder).model.norm.weight
    view = np.asarray(weight)
    view[:] = 7.0
    assert weight[0].item() == 7.0
    weight += 1.0
    mx.eval(weight)
    assert (folder / "model.safetensors").read_bytes() == before


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_replaced_by_renaming_or_deleted_stays_what_it_was(folder, tmp_path, replace):
    expected = logits(load_model(folder))
    model = load_model(folder)
    if replace:
        os.replace(write_packed(tmp_path / "other", seed=1) / "model.safetensors", folder / "model.safetensors")
        assert logits(load_model(folder)) != expected
    else:
        (folder / "model.safetensors").unlink()
    assert logits(model) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="needs RLIMIT_DATA")
def test_a_limit_on_private_memory_does_not_count_the_weights(tmp_path):
    with (tmp_path / "file").open("wb") as file:
        file.truncate(4 << 30)
    code = (
        "import resource, sys; from pathlib import Path; import mlx.core as mx; from mistral_mlx import kernels\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2 << 30, 2 << 30))\n"
        "print(kernels.map_tensors(Path(sys.argv[1]), [(3 << 30, (3,), mx.float32)])[0].tolist())"
    )
    run = subprocess.run([sys.executable, "-c", code, tmp_path / "file"], capture_output=True, text=True, check=False)
    assert run.stdout == "[0.0, 0.0, 0.0]\n", run.stderr

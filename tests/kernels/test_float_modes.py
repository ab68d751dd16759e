"""Every packing of MLX on a tiny model: unpacked without rounding, run and converted."""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, random_weights, write_folder
from mlx.utils import tree_flatten
from reference import forward

from mistral_mlx import kernels
from mistral_mlx.convert import convert
from mistral_mlx.files.folder import ModelFolder
from mistral_mlx.kernels import native
from mistral_mlx.kernels.fallback.float_modes import CODE_BITS, GROUP_SIZES, HELD_BITS, unpack
from mistral_mlx.model.loading import inspect_model, load_model, memory_needed

IDS = [1, 5, 9, 33, 7, 2, 60]
AFFINE = [("affine", bits, 32 << bits % 3) for bits in (2, 3, 4, 5, 6, 8)]
FLOAT = [(mode, CODE_BITS[mode], GROUP_SIZES[mode]) for mode in GROUP_SIZES]


def all_bytes(mode: str) -> tuple[mx.array, mx.array]:
    """Return every code with every scale."""
    codes = np.tile(np.arange(256, dtype=np.uint8), (256, 1)).view(np.uint32)
    scales = np.repeat(np.arange(256, dtype=np.uint8)[:, None], 256 * 8 // CODE_BITS[mode] // GROUP_SIZES[mode], axis=1)
    return mx.array(codes), mx.array(scales)


def truth(mode: str, weight: mx.array, scales: mx.array) -> np.ndarray:
    how = {"group_size": GROUP_SIZES[mode], "bits": CODE_BITS[mode], "mode": mode}
    return np.array(mx.dequantize(weight, scales, **how, dtype=mx.float32), np.float64)


@pytest.mark.parametrize("mode", GROUP_SIZES)
def test_unpacking_loses_nothing(mode: str) -> None:
    expected = truth(mode, *all_bytes(mode))
    weight, *lines = (part.astype(mx.float32) if i else part for i, part in enumerate(unpack(mode, *all_bytes(mode))))
    found = mx.dequantize(weight, *lines, group_size=32, bits=8) if lines else weight.astype(mx.float32)
    finite = np.isfinite(expected)
    assert not np.isfinite(np.array(found)[~finite]).any()
    if mode == "mxfp4":
        finite[250:] = False  # of scales of 2^123 and more the bias is infinite
    assert finite.mean() > 0.97
    normal = finite & ((np.abs(expected) >= 2.0**-126) | (expected == 0))  # MLX's bfloat16 has no smaller ones
    np.testing.assert_array_equal(np.array(found)[normal], expected[normal])
    np.testing.assert_allclose(np.array(found)[finite], expected[finite], atol=2.0**-125)


@pytest.mark.cpu
@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("native_kernels", [True, False])
@pytest.mark.parametrize(("mode", "bits", "group"), AFFINE + FLOAT)
@pytest.mark.usefixtures("exact_products")
def test_logits_are_those_of_the_unpacked_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, bits: int, group: int, native_kernels: bool
) -> None:
    if not native_kernels:
        monkeypatch.setattr(native, "available", False)
    convert(write_folder(tmp_path / "source"), tmp_path / "target", bits=bits, group_size=group, mode=mode)
    tensors = mx.load(str(tmp_path / "target" / "model.safetensors"))
    weights = {}
    for name, shape in ((n, w.shape) for n, w in random_weights(CONFIG).items()):
        path = name.removesuffix(".weight")
        parts = [tensors[f"{path}.{part}"] for part in ("weight", "scales", "biases") if f"{path}.{part}" in tensors]
        if len(shape) == 2:
            assert len(parts) == (3 if mode == "affine" else 2)
            parts = [mx.dequantize(*parts, group_size=group, bits=bits, mode=mode, dtype=mx.float32)]
        weights[name] = np.array(parts[0], np.float64)
    model = load_model(tmp_path / "target")
    expected = forward(model.args, weights, IDS)
    found = np.array(model(mx.array([IDS])))[0]
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


@pytest.mark.parametrize(("mode", "bits", "group"), [("affine", 6, 32), *FLOAT])
def test_a_gpu_takes_the_packed_weights_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: str, bits: int, group: int
) -> None:
    convert(write_folder(tmp_path / "source"), tmp_path / "target", bits=bits, group_size=group, mode=mode)
    expected = np.array(load_model(tmp_path / "target")(mx.array([IDS])))
    monkeypatch.setattr(kernels, "on_cpu", lambda: False)  # MLX's own operations, which a CPU has as well
    model = load_model(tmp_path / "target")
    assert model.model.layers[0].mlp.up_proj.mode == mode
    found = np.array(model(mx.array([IDS])))
    np.testing.assert_allclose(found, expected, atol=3e-2 * np.abs(expected).max())


@pytest.mark.cpu
@pytest.mark.parametrize(("mode", "bits", "group"), FLOAT)
def test_the_memory_counted_is_the_memory_held(tmp_path: Path, mode: str, bits: int, group: int) -> None:
    target = tmp_path / "target"
    convert(write_folder(tmp_path / "source"), target, mode=mode, dtype="bfloat16")
    model = load_model(target)
    held = sum(part.nbytes for _, part in tree_flatten(model.parameters()))
    inspected = inspect_model(ModelFolder(target))
    norms = sum(entry.nbytes for name, entry in inspected.entries.items() if "norm" in name)
    packed = sum(w.size for name, w in random_weights(CONFIG).items() if "norm" not in name)
    assert held == packed * HELD_BITS[mode] // 8 + norms
    assert memory_needed(inspected, 0) == held


@pytest.mark.usefixtures("exact_products")
@pytest.mark.parametrize("mode", GROUP_SIZES)
def test_exceptions_have_a_mode_of_their_own(tmp_path: Path, mode: str) -> None:
    convert(write_folder(tmp_path / "source"), tmp_path / "target", bits=8, group_size=32)
    path = tmp_path / "target" / "model.safetensors"
    tensors, name = mx.load(str(path)), "model.layers.0.mlp.up_proj"
    plain = mx.array(random_weights(CONFIG)[f"{name}.weight"])
    tensors[f"{name}.weight"], tensors[f"{name}.scales"] = mx.quantize(plain, mode=mode)
    del tensors[f"{name}.biases"]
    mx.eval(tensors)
    path.unlink()
    mx.save_safetensors(str(path), tensors)
    index = tmp_path / "target" / "model.safetensors.index.json"
    index.unlink()
    config = json.loads((tmp_path / "target" / "config.json").read_text())
    for key in ("quantization", "quantization_config"):
        config[key][name] = {"mode": mode}
    (tmp_path / "target" / "config.json").write_text(json.dumps(config))
    layer = load_model(tmp_path / "target").model.layers[0].mlp.up_proj
    x = mx.random.normal((3, 128))
    expected = np.array(x, np.float64) @ truth(mode, tensors[f"{name}.weight"], tensors[f"{name}.scales"]).T
    np.testing.assert_allclose(np.array(kernels.products(x, [layer.parts])[0]), expected, atol=1e-3)

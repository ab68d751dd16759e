"""The search for scales: never worse than `mx.quantize`, and equal on all kernels."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from helpers.convert_sources import CONFIG, write_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from mistral_mlx import kernels
from mistral_mlx.convert.files.safetensors_writer import ShardWriter
from mistral_mlx.convert.plan.choice import make_choice
from mistral_mlx.convert.plan.plan import make_plan
from mistral_mlx.convert.rounding.inputs import Inputs
from mistral_mlx.convert.sources.open import open_source
from mistral_mlx.convert.write.quantize import run_step
from mistral_mlx.kernels import native
from mistral_mlx.kernels.dtypes import MLX_DTYPES
from mistral_mlx.kernels.fallback import packing

DTYPES = ["F32", "F16", "BF16"]
BITS = [2, 3, 4, 5, 6, 8]
needs_native = pytest.mark.skipif(not native.built, reason=f"no native kernels: {native.missing}")


@pytest.fixture(params=["native", "numpy"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "numpy":
        monkeypatch.setattr(native, "built", False)
    elif not native.built:
        pytest.skip(f"no native kernels: {native.missing}")
    return str(request.param)


def stored_as(weight: np.ndarray, dtype: str) -> np.ndarray:
    return packing.host(mx.array(weight).astype(MLX_DTYPES[dtype]))


def exact(rows: np.ndarray, dtype: str) -> np.ndarray:
    return packing.floats(packing.decode(rows, dtype)).astype(np.float64)


def group_errors(
    found: packing.Quantized, rows: np.ndarray, stored: str, dtype: str, bits: int, group: int, h: np.ndarray
) -> np.ndarray:
    scales, biases = (packing.decode(part, dtype).astype(mx.float32) for part in (found.scales, found.biases))
    unpacked = mx.dequantize(mx.array(found.weight.view("<u4")), scales, biases, group_size=group, bits=bits)
    lost = exact(rows, stored) - np.array(unpacked, np.float64)
    return (h * lost**2).reshape(-1, group).sum(-1)


def assert_never_worse(rows: np.ndarray, stored: str, dtype: str, bits: int, group: int, h: np.ndarray | None) -> float:
    """Return the searched error in parts of the one that is not."""
    with np.errstate(all="ignore"):
        plain = kernels.quantize(rows, stored, dtype, group_size=group, bits=bits)
        found = kernels.quantize(rows, stored, dtype, group_size=group, bits=bits, search=True, importance=h)
        weighted = np.ones(1) if h is None else h.astype(np.float64)
        before, after = (group_errors(q, rows, stored, dtype, bits, group, weighted) for q in (plain, found))
    assert ((after <= before) | ~np.isfinite(before)).all()
    assert (found.largest, found.finite) == (plain.largest, plain.finite)
    if h is None and found.finite and np.isfinite(found.error):
        assert found.error == pytest.approx(after.sum(), rel=1e-4, abs=1e-36)  # float32 holds no smaller squares
    with np.errstate(all="ignore"):
        return float(after.sum() / before.sum()) if before.sum() else 1.0


def weights(*shape: int) -> Iterator[np.ndarray]:
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(shape).astype(np.float32)
    yield normal
    yield np.abs(normal) + 1
    yield -np.abs(normal) * np.float32(1e-6)
    yield 100 + normal * np.float32(1e-6)
    yield normal * np.float32(1e-40)
    yield np.clip(normal, -1, 1) * np.float32(3e38)
    yield normal * (rng.random(shape) < 0.05)
    yield np.full(shape, 0.1, np.float32)
    yield np.zeros(shape, np.float32)
    for value in (np.inf, -np.inf, np.nan):
        yield np.where(rng.random(shape) < 0.02, np.float32(value), normal)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_no_group_is_worse_than_without(backend: str, dtype: str, bits: int) -> None:
    rng = np.random.default_rng(1)
    for columns, group in ((96, 32), (1152, 64), (2176, 128)):
        for h in (None, np.zeros(columns, np.float32), (rng.standard_normal(columns) ** 4).astype(np.float32)):
            for weight in weights(3, columns):
                assert_never_worse(stored_as(weight, dtype), dtype, dtype, bits, group, h)
                assert_never_worse(stored_as(weight, "F32"), "F32", dtype, bits, group, h)


@needs_native
@settings(max_examples=200, deadline=None)
@given(st.binary(min_size=256, max_size=256), st.sampled_from(DTYPES), st.sampled_from(DTYPES), st.sampled_from(BITS))
def test_no_group_is_worse_for_any_bits_that_come(content: bytes, stored: str, dtype: str, bits: int) -> None:
    assert_never_worse(np.frombuffer(content, np.uint8).reshape(2, -1), stored, dtype, bits, 32, None)


@pytest.mark.parametrize(
    ("bits", "most"), [(2, 0.70), (3, 0.80), (4, 0.86), (5, 0.88), (6, 0.87), (8, 0.65)]
)  # parts of the squared error
def test_normal_weights_lose_much_less(backend: str, bits: int, most: float) -> None:
    rows = stored_as(next(weights(40, 2048)), "BF16")
    rng = np.random.default_rng(2)
    assert assert_never_worse(rows, "BF16", "BF16", bits, 64, None) < most
    weighted = assert_never_worse(rows, "BF16", "BF16", bits, 64, (rng.standard_normal(2048) ** 2).astype(np.float32))
    assert weighted < most * 0.97


@needs_native
@pytest.mark.parametrize("dtype", DTYPES)
def test_native_and_numpy_find_the_same(dtype: str) -> None:
    rows = stored_as(next(weights(40, 2048)), dtype)
    h = (np.random.default_rng(2).standard_normal(2048) ** 2).astype(np.float32)
    for bits in BITS:
        for importance in (None, h):
            found, expected = (
                q(rows, dtype, dtype, group_size=32, bits=bits, search=True, importance=importance)
                for q in (kernels.quantize, packing.quantize)
            )
            assert found.error == pytest.approx(expected.error, rel=3e-3)
            assert (found.weight == expected.weight).mean() > 0.9  # widths that are as good as each other


@pytest.mark.parametrize("group", [32, 64, 128])
def test_constant_groups_stay_exact(backend: str, group: int) -> None:
    weight = np.repeat(np.random.default_rng(3).standard_normal((4, 3)), group, axis=1)
    for dtype in DTYPES:
        for bits in BITS:
            rows = stored_as(weight.astype(np.float32), dtype)
            found = kernels.quantize(rows, dtype, dtype, group_size=group, bits=bits, search=True)
            assert (found.error, found.finite) == (0.0, True)


@needs_native
def test_threads_and_instructions_change_nothing() -> None:
    rows = stored_as(next(weights(37, 2176)), "BF16")
    h = (np.random.default_rng(2).standard_normal(2176) ** 2).astype(np.float32)
    before, name, results = native.ext.threads(), native.ext.name(), set()
    try:
        for kernel_set in native.ext.sets():
            assert native.ext.select(kernel_set)
            for count in (1, 2, 5):
                native.ext.set_threads(count)
                found = kernels.quantize(
                    rows, "BF16", "F16", group_size=64, bits=4, search=True, importance=h if count < 5 else h * 1
                )
                results.add((*(part.tobytes() for part in found[:3]), *found[3:]))
    finally:
        native.ext.set_threads(before)
        native.ext.select(name)
    assert len(results) == 1


def test_importance_of_another_length_is_refused(backend: str) -> None:
    rows = stored_as(next(weights(2, 64)), "F32")
    with pytest.raises(ValueError, match=r"fit rows|broadcast"):
        kernels.quantize(rows, "F32", "F32", group_size=32, bits=4, search=True, importance=np.ones(32, np.float32))


def test_a_step_searches_with_the_inputs_of_its_module(tmp_path: Path) -> None:
    source = open_source(write_folder(tmp_path / "source", CONFIG))
    plan = make_plan(source, make_choice(bits=4, group_size=32), None)
    step = next(step for step in plan.steps if "q_proj" in step.tensor.name)
    h = np.linspace(0, 4, step.tensor.columns, dtype=np.float32) ** 4
    inputs = Inputs(step.tensor.columns)
    inputs.add(np.diag(np.sqrt(h)))

    def outcome(name: str, search: bool, inputs: dict[str, Inputs] | None) -> tuple[float, float]:
        chosen = replace(step, search=search)
        (tmp_path / name).mkdir()
        writer = ShardWriter(tmp_path / name, {"model.safetensors": chosen.outputs})
        error = run_step(chosen, writer, on_block=lambda _: None, inputs=inputs)
        writer.finish(1)
        parts = mx.load(str(tmp_path / name / "model.safetensors"))
        unpacked = mx.dequantize(*(parts[output.name] for output in chosen.outputs), group_size=32, bits=4)
        original = mx.load(str(tmp_path / "source" / "model.safetensors"))[step.tensor.name]
        lost = np.array(original.astype(mx.float32)) - np.array(unpacked.astype(mx.float32))
        assert error is not None
        return error, float((h * lost**2).sum())

    plain, searched = outcome("plain", False, None), outcome("searched", True, None)
    weighted, other = outcome("weighted", True, {step.path: inputs}), outcome("other", True, {"model.norm": inputs})
    assert weighted[1] < searched[1] < plain[1] and searched[0] < weighted[0]
    assert other == searched

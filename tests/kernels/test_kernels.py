"""The CPU's products against float64, on shapes that no block size divides."""

import mlx.core as mx
import numpy as np
import pytest

from mistral_mlx import kernels
from mistral_mlx.kernels.fallback import products as cpu

TOLERANCE = 1e-5  # relative to the largest result: float32 sums over at most 4,096 terms


def close(result, expected):
    result = np.array(result)
    assert result.shape == expected.shape
    assert np.abs(result - expected).max() <= TOLERANCE * np.abs(expected).max()


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("shape", [(1,), (1, 7), (2, 13)])
def test_matmul_of_any_stored_dtype_is_computed_in_float32(shape, dtype):
    weight = mx.array(normal(17, 4096)).astype(dtype)
    x = normal(*shape, 4096, seed=1).astype(np.float32)
    close(cpu.matmul(mx.array(x), weight), x.astype(np.float64) @ np.array(weight.astype(mx.float32)).T)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_quantized_matmul_is_exact_for_one_row_and_for_many(bits, group_size, dtype):
    packed = mx.quantize(mx.array(normal(19, 384)).astype(dtype), group_size, bits)
    scales, biases = (array.astype(mx.float32) for array in packed[1:])
    weight = np.array(mx.dequantize(packed[0], scales, biases, group_size, bits), np.float64)
    for n_rows in (1, 5, 6, 33):
        x = normal(n_rows, 384, seed=n_rows).astype(np.float32)
        close(cpu.quantized_matmul(mx.array(x), *packed, group_size=group_size, bits=bits), x @ weight.T)


def test_quantized_matmul_in_blocks_is_the_same(monkeypatch):
    packed = mx.quantize(mx.array(normal(19, 64)), 32, 4)
    x = mx.array(normal(2, 9, 64, seed=1))
    whole = cpu.quantized_matmul(x, *packed, group_size=32, bits=4)
    monkeypatch.setattr(cpu, "BLOCK_ELEMENTS", 64 * 4)
    close(cpu.quantized_matmul(x, *packed, group_size=32, bits=4), np.array(whole))


@pytest.mark.parametrize("score_elements", [cpu.SCORE_ELEMENTS, 100])
@pytest.mark.parametrize(("n_heads", "n_kv_heads"), [(6, 6), (6, 2), (5, 1)])
@pytest.mark.parametrize(("n_new", "n_keys"), [(1, 1), (1, 37), (11, 37), (37, 37)])
def test_attention_shares_keys_between_groups_of_heads(n_new, n_keys, n_heads, n_kv_heads, score_elements, monkeypatch):
    monkeypatch.setattr(cpu, "SCORE_ELEMENTS", score_elements)
    q, k = normal(2, n_heads, n_new, 10), normal(2, n_kv_heads, n_keys, 10, seed=1)
    v = normal(2, n_kv_heads, n_keys, 10, seed=2)
    mask = np.tril(np.ones((n_new, n_keys), bool), n_keys - n_new)
    result = cpu.attention(
        *(mx.array(a.astype(np.float32)) for a in (q, k, v)), scale=0.3, mask=None if n_new == 1 else mx.array(mask)
    )
    repeats = n_heads // n_kv_heads
    scores = 0.3 * q @ k.repeat(repeats, axis=1).swapaxes(-1, -2)
    weights = np.exp(np.where(mask, scores, -np.inf))
    close(result, weights / weights.sum(axis=-1, keepdims=True) @ v.repeat(repeats, axis=1))


@pytest.mark.cpu
def test_activations_are_float32_on_the_cpu_whatever_is_stored():
    assert kernels.activation_dtype(mx.bfloat16) == mx.float32

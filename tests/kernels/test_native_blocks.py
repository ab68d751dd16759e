"""Native attention and whole blocks, against float64 and against single steps."""

import random
from itertools import chain

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_model
from helpers.native import normal

from mistral_mlx import kernels as mistral_kernels
from mistral_mlx.kernels import native
from mistral_mlx.model.cache import RollingBufferCache, make_cache
from mistral_mlx.model.packing import Packing

pytestmark = pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")

ATTENTION_EPS = 2e-6  # exp is good to 2e-7, scores of about 10 to 2^-24 of their size


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("window", [0, 1, 5, 64, 100])
@pytest.mark.parametrize(("n_new", "n_keys"), [(1, 1), (1, 131), (2, 65), (37, 37), (67, 200)])
def test_attention_sees_the_window_and_nothing_else(kernels, n_new, n_keys, window, dtype):
    q = normal(2, 6, n_new, 20)
    k, v = (mx.array(normal(2, 2, n_keys, 20, seed=seed)).astype(dtype) for seed in (1, 2))
    result = np.array(kernels.attention(mx.array(q), k, v, scale=0.3, window=window, position=n_keys - n_new))
    keys, values = (np.array(a.astype(mx.float32), np.float64).repeat(3, axis=1) for a in (k, v))
    distance = np.arange(n_keys - n_new, n_keys)[:, None] - np.arange(n_keys)
    seen = (distance >= 0) & ((distance < window) | (window == 0))
    weights = np.exp(np.where(seen, 0.3 * q.astype(np.float64) @ keys.swapaxes(-1, -2), -np.inf))
    expected = weights / weights.sum(axis=-1, keepdims=True) @ values
    expected = expected.swapaxes(1, 2).reshape(2, n_new, -1)
    assert np.abs(result - expected).max() <= ATTENTION_EPS * np.abs(values).max()


def test_attention_of_any_number_of_threads_gives_the_same_bits(kernels):
    q, k = mx.array(normal(1, 6, 70, 64)), mx.array(normal(1, 2, 170, 64, seed=1))
    results = []
    for threads in (1, 3):
        kernels.set_threads(threads)
        results.append(np.array(kernels.attention(q, k, k, scale=0.1, window=33, position=100)).tobytes())
    kernels.set_threads(0)
    assert results[0] == results[1]


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize(("n_heads", "n_kv_heads", "head_dim"), [(9, 3, 64), (8, 2, 128), (6, 1, 20), (2, 2, 5)])
@pytest.mark.parametrize("window", [None, 1, 33, 100])
def test_a_query_gives_the_same_bits_alone_and_with_others(kernels, window, n_heads, n_kv_heads, head_dim, dtype):
    """Alone, a query gets the keys of its window only, which begin anywhere in a tile of 64."""
    n_keys, n_new = 170, 90
    q = mx.array(normal(1, n_heads, n_new, head_dim))
    k, v = (mx.array(normal(1, n_kv_heads, n_keys, head_dim, seed=seed)).astype(dtype) for seed in (1, 2))
    together = np.array(mistral_kernels.attention(q, k, v, scale=0.2, window=window))
    for n, step in ((1, 7), (3, 3), (16, 16)):
        for i in range(0, n_new - n, step):
            position = n_keys - n_new + i
            first = max(0, position - window + 1) if window else 0
            parts = (part[:, :, first : position + n] for part in (k, v))
            alone = mistral_kernels.attention(q[:, :, i : i + n], *parts, scale=0.2, window=window, position=position)
            assert np.array(alone).tobytes() == together[:, i : i + n].tobytes()


def tiny_block(bits):
    """A random transformer block, its weights plain float32 (0 bits) or packed from half precision."""
    model, _ = tiny_model(seed=3, hidden_size=64, intermediate_size=96)
    block = model.model.layers[0]
    for part in (block.self_attn, block.mlp) if bits else ():
        for name, layer in part.children().items():
            packed = layer.quantized(Packing(bits, 32))
            packed.update(
                dict(
                    zip(
                        ("weight", "scales", "biases"),
                        mx.quantize(layer.weight.astype(mx.float16), 32, bits),
                        strict=True,
                    )
                )
            )
            part[name] = packed
    return block


def assert_near(result, expected, error):
    expected = np.array(expected, np.float32)
    assert np.abs(np.array(result, np.float32) - expected).max() <= error * np.abs(expected).max()


@pytest.mark.parametrize("bits", [0, 4, 5, 8])
@pytest.mark.parametrize("window", [None, 5])
def test_a_block_in_one_step_is_the_block_in_single_steps(kernels, window, bits):
    """Over more than two wraps of the ring, by steps of more and of less tokens than it has slots to spare."""
    block, fused, single = tiny_block(bits), RollingBufferCache(window), RollingBufferCache(window)
    error = 1e-3 if bits else 1e-5  # a key may be rounded to the next half where the steps differ in the last bit
    for i, n_new in enumerate([1, 3, 200, 1, 1, 70, 9, 130, 1]):
        x = mx.array(normal(2, n_new, 64, seed=i))
        assert_near(block(x, fused), block.in_steps(x, single), error)
    assert fused.offset == single.offset == 416
    assert_near(fused.keys, single.keys, error)
    assert_near(fused.values, single.values, error)


@pytest.mark.parametrize("window", [None, 1, 5, 64])
def test_a_step_of_any_size_gives_the_same_bits(kernels, window):
    """Of weights in float32, over two wraps, with some tokens taken back; up to 8 rows, which are multiplied alone."""
    rng, block = random.Random(0), tiny_block(0)
    x = mx.array(normal(1, 400, 64))
    alone = RollingBufferCache(window)
    expected = np.concatenate([np.array(block(x[:, i : i + 1], alone)) for i in range(400)], axis=1)
    cache = RollingBufferCache(window)
    while cache.offset < 400:
        n_new = rng.randint(1, min(8, 400 - cache.offset))
        start = cache.offset
        result = np.array(block(x[:, start : start + n_new], cache))
        assert result.tobytes() == expected[:, start : start + n_new].tobytes()
        cache.trim(rng.choice([0, 0, 0, n_new - 1, min(cache.offset, 10)]))


def test_a_buffer_that_someone_holds_is_not_written_into(kernels):
    block, cache = tiny_block(0), RollingBufferCache(4)
    for i in range(9):
        mx.eval(block(mx.array(normal(1, 1, 64, seed=i)), cache))
    held = cache.keys
    before = np.array(held)
    mx.eval(block(mx.array(normal(1, 1, 64, seed=9)), cache))
    assert (np.array(held) == before).all()
    assert (np.array(cache.keys) != before).any()


def test_a_buffer_that_nobody_holds_is_written_in_place(kernels):
    block, cache = tiny_block(0), RollingBufferCache(4)
    places = set()
    for i in range(9):
        mx.eval(block(mx.array(normal(1, 1, 64, seed=i)), cache))
        places.add(np.asarray(cache.keys).ctypes.data)
    assert len(places) <= 2  # the first step has another one


def through_blocks(model, ids, cache):
    """Return the logits block by block."""
    return model.logits(model.model(ids, cache))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("window", [None, 5, [5, 70]])
def test_a_model_at_once_gives_the_bits_of_its_blocks(kernels, window, tied):
    model, _ = tiny_model(seed=1, sliding_window=window, tie_word_embeddings=tied)
    ids = mx.array(np.random.default_rng(0).integers(0, 64, (2, 300)))
    at_once, single = make_cache(model.args), make_cache(model.args)
    for n_new in (1, 7, 16, 100, 1, 8, 3, 110, 2, 1):
        part = ids[:, at_once[0].offset :][:, :n_new]
        assert np.array(model(part, at_once)).tobytes() == np.array(through_blocks(model, part, single)).tobytes()
    for a, b in zip(at_once, single, strict=True):
        assert np.array(a.keys).tobytes() == np.array(b.keys).tobytes()
        assert np.array(a.values).tobytes() == np.array(b.values).tobytes()


def test_hidden_states_at_once_are_those_of_the_blocks(kernels):
    model, _ = tiny_model(seed=1)
    ids = mx.array([[3, 1, 4, 1, 5]])
    expected = np.array(model.model(ids, make_cache(model.args)))
    assert np.array(model.hidden(ids, make_cache(model.args))).tobytes() == expected.tobytes()


@pytest.mark.parametrize("change", ["assigned", "in place", "norm", "layer", "head"])
def test_a_model_whose_weights_change_is_made_ready_again(kernels, change):
    model, _ = tiny_model(seed=1)
    ids = mx.array([[3, 1, 4]])
    before = np.array(model(ids))
    attention = model.model.layers[1].self_attn
    if change == "assigned":
        attention.v_proj.weight = attention.v_proj.weight * 2
    elif change == "in place":
        attention.v_proj.weight[0] = 1.0
    elif change == "norm":
        model.model.norm.weight = model.model.norm.weight * 2
    elif change == "layer":
        attention.v_proj = model.model.layers[0].self_attn.v_proj
    else:
        model.lm_head.weight = model.lm_head.weight * 2
    after = np.array(model(ids))
    assert after.tobytes() == np.array(through_blocks(model, ids, make_cache(model.args))).tobytes()
    assert after.tobytes() != before.tobytes()


def test_all_rings_are_written_in_place_where_nobody_holds_them(kernels):
    model, _ = tiny_model(sliding_window=[5, None])
    cache, places = make_cache(model.args), set()
    for token in range(9):
        mx.eval(model(mx.array([[token]]), cache))
        places.add(tuple(np.asarray(a).ctypes.data for layer in cache for a in (layer.keys, layer.values)))
    assert len(places) == 1
    held = [np.array(layer.keys) for layer in cache]
    copies = [layer.copy() for layer in cache]
    mx.eval(model(mx.array([[5]]), cache))
    assert all((np.array(copy.keys) == before).all() for copy, before in zip(copies, held, strict=True))
    assert all((np.array(layer.keys) != before).any() for layer, before in zip(cache, held, strict=True))


@pytest.mark.parametrize("window", [None, 5, [5, 70]])
def test_texts_in_one_pass_have_the_bits_that_they_have_alone(kernels, window):
    model, _ = tiny_model(seed=1, sliding_window=window)
    rng = np.random.default_rng(2)
    texts = [rng.integers(0, 64, 400).tolist() for _ in range(3)]
    together, alone = [make_cache(model.args) for _ in texts], [make_cache(model.args) for _ in texts]
    for text, *caches in zip(texts, together, alone, strict=True):  # each at its own place
        for cache in caches:
            mx.eval(model.hidden(mx.array([text[: 60 + text[0]]]), cache))
    for _ in range(60):
        parts = [text[cache[0].offset :][: rng.integers(1, 6)] for text, cache in zip(texts, together, strict=True)]
        shared = model.together(list(zip(parts, together, strict=True)))
        for part, cache, logits in zip(parts, alone, shared, strict=True):
            assert np.array(logits).tobytes() == np.array(model(mx.array([part]), cache)[0]).tobytes()
    for a, b in zip(chain(*together), chain(*alone), strict=True):
        assert np.array(a.keys).tobytes() == np.array(b.keys).tobytes()

"""The ring buffer: slots, masks, sizes."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_model

from mistral_mlx import kernels
from mistral_mlx.errors import OptionError
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache import GROWTH_STEP, RollingBufferCache, cache_nbytes, make_cache


def feed(cache, n):
    """Store `n` tokens whose keys are their positions; return the positions seen, and the mask for the step."""
    mask = cache.make_mask(n)
    keys = mx.arange(cache.offset, cache.offset + n, dtype=mx.float32).reshape(1, 1, n, 1)
    seen, values = cache.update_and_fetch(keys, -keys)
    assert mx.array_equal(values, -seen)
    return seen.flatten().tolist(), mask


def ring(cache):
    return cache.keys.flatten().tolist()


def ring_of(window, size):
    """Return a cache whose ring has fewer slots than the kernels want, to see more of it."""
    cache = RollingBufferCache(window)
    cache.size = size
    return cache


def test_worked_example_of_the_docstring():
    cache = ring_of(4, 8)
    feed(cache, 10)
    assert ring(cache) == [8, 9, 2, 3, 4, 5, 6, 7]
    seen, mask = feed(cache, 1)
    assert np.array(seen)[np.array(mask)[0]].tolist() == [8, 9, 10, 7]
    cache.trim(5)
    seen, mask = feed(cache, 1)
    assert sorted(np.array(seen)[np.array(mask)[0]].tolist()) == [3, 4, 5, 6]


@pytest.mark.parametrize("window", [1, 2, 7, 8])
@pytest.mark.parametrize("steps", [(1,) * 300, (3,) * 100, (5, 1, 1, 9, 2, 1, 16), (140, 1, 140, 1), (7, 1, 130, 8, 1)])
@pytest.mark.parametrize("size", [None, 16])
def test_every_query_sees_exactly_its_window(window, steps, size):
    cache = RollingBufferCache(window) if size is None else ring_of(window, size)
    for n in steps:
        start = cache.offset
        seen, mask = feed(cache, n)
        rows = np.ones((1, len(seen)), bool) if mask is None else np.array(mask)
        assert rows.shape == (n, len(seen))
        for i, row in enumerate(rows):
            position = start + i
            visible = sorted(np.array(seen)[row].astype(int).tolist())
            assert visible == list(range(max(0, position - window + 1), position + 1))
            assert row.sum() == min(position + 1, window)


def test_without_a_window_everything_is_seen_and_nothing_is_overwritten():
    cache = RollingBufferCache(None)
    for n in (3, 1, 300, 1):
        start = cache.offset
        seen, mask = feed(cache, n)
        assert seen == list(range(start + n))
        if mask is not None:
            assert np.array(mask).sum(axis=1).tolist() == list(range(start + 1, start + n + 1))
    assert not cache.wrapped


@pytest.mark.parametrize(("window", "size"), [(1, 128), (5, 128), (64, 128), (65, 192), (300, 384), (4096, 4160)])
def test_a_ring_has_64_to_127_slots_more_than_its_window_has_tokens(window, size):
    cache = RollingBufferCache(window)
    for n in (1, 299, 1, 250, 3 * window, 1):
        feed(cache, n)
        assert cache.keys.shape[2] <= size
    assert cache.nbytes == 2 * 4 * size
    assert size % 64 == 0
    assert 64 <= size - window < 128


def test_a_short_chat_does_not_pay_for_the_window():
    cache = RollingBufferCache(4096)
    feed(cache, 10)
    assert cache.keys.shape[2] == GROWTH_STEP


def test_bytes_stay_the_same_from_one_window_on_and_are_what_is_predicted():
    model, _ = tiny_model(sliding_window=[8, 6])
    cache = make_cache(model.args)
    sizes = []
    for _ in range(10):
        model(mx.array([list(range(8))]), cache)
        sizes.append(sum(layer.nbytes for layer in cache))
    assert set(sizes) == {cache_nbytes(model.args, 8, itemsize=4)} == {cache_nbytes(model.args, 80, itemsize=4)}
    assert sizes[0] == 2 * (128 + 128) * model.args.n_kv_heads * model.args.head_dim * 4


def test_mistral_7b_needs_520_mib_for_its_window_in_half_precision():
    config = {"model_type": "mistral", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}
    config |= {"num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 32000, "sliding_window": 4096}
    assert cache_nbytes(ModelArgs.from_config(config), 32_768, itemsize=2) == 520 * 1024 * 1024


def test_trim_forgets_the_newest_tokens():
    cache = RollingBufferCache(8)
    feed(cache, 7)
    cache.trim(4)
    seen, _ = feed(cache, 2)
    assert seen == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("n", [128, 129, 150, 1000])
def test_a_wrapped_ring_can_be_trimmed_while_it_has_what_the_next_token_sees(n):
    """With 8 tokens and 128 slots: 121 tokens, or all of them before anything is overwritten."""
    for n_tokens in range(n + 1):
        cache = RollingBufferCache(8)
        cache.offset = cache.reserved = n
        assert cache.can_trim(n_tokens) == (n <= 128 or n_tokens <= 121)
    with pytest.raises(OptionError, match="cannot be taken back"):
        cache.trim(n + 1)


def test_what_was_overwritten_stays_known_after_a_trim():
    cache = RollingBufferCache(8)
    feed(cache, 300)
    cache.trim(100)
    assert (cache.offset, cache.reserved) == (200, 300)
    assert cache.can_trim(21)
    assert not cache.can_trim(22)
    feed(cache, 50)
    assert cache.reserved == 300


@pytest.mark.parametrize("window", [1, 2, 8, 40])
@pytest.mark.parametrize("n_next", [1, 3, 11])
def test_a_token_taken_back_is_never_seen(window, n_next):
    """After the wrap it leaves its key in a slot; the key that was there before belongs to no later query."""
    cache, wrong = RollingBufferCache(window), mx.full((1, 1, 1, 1), 1e6)
    for _ in range(30):
        cache.update_and_fetch(wrong, wrong)
        cache.trim(1)
        start = cache.offset
        seen, mask = feed(cache, n_next)
        rows = np.ones((1, len(seen)), bool) if mask is None else np.array(mask)
        for position, row in enumerate(rows, start):
            assert sorted(np.array(seen)[row]) == list(range(max(0, position - window + 1), position + 1))


def attended(q, keys, values, window, start):
    """Return attention in float64 over the whole history, ``[S, Dh]`` each; the first query stands at `start`."""
    distance = start + np.arange(len(q))[:, None] - np.arange(len(keys))
    scores = np.where((distance >= 0) & (distance < window), q.astype(np.float64) @ keys.T, -np.inf)
    weights = np.exp(scores - scores.max(axis=1, keepdims=True))
    return weights / weights.sum(axis=1, keepdims=True) @ values


@pytest.mark.parametrize("native", [True, False], ids=["native", "fallback"])
@pytest.mark.parametrize("window", [1, 3, 4, 16, 64, 100])
def test_a_ring_is_a_window_over_the_whole_history(window, native, monkeypatch):
    """Steps of any size, with tokens taken back between them, over more than two wraps."""
    if not native:
        monkeypatch.setattr(kernels, "uses_native", lambda: False)
    rng, cache = np.random.default_rng(window), RollingBufferCache(window)
    keys, values = np.zeros((0, 4), np.float32), np.zeros((0, 4), np.float32)
    while cache.offset < 3 * cache.size:
        n_new, start = int(rng.choice([1, 1, 1, 2, 7, 64, 65, 150])), cache.offset
        q, k, v = rng.normal(size=(3, n_new, 4)).astype(np.float32)
        keys, values = np.concatenate([keys, k]), np.concatenate([values, v])
        ring = cache.returns_ring(n_new)
        seen = cache.update_and_fetch(mx.array(k)[None, None], mx.array(v)[None, None])
        result = kernels.attention(mx.array(q)[None, None], *seen, scale=1.0, window=window, position=start, ring=ring)
        assert np.abs(np.array(result)[0] - attended(q, keys, values, window, start)).max() < 1e-5
        n_back = int(rng.choice([0, 0, 1, 5, 60]))
        if cache.can_trim(n_back):
            cache.trim(n_back)
            keys, values = keys[: cache.offset], values[: cache.offset]

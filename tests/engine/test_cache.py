"""The ring buffer: slots, masks, sizes."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_model

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


def test_worked_example_of_the_docstring():
    cache = RollingBufferCache(4)
    feed(cache, 6)
    assert ring(cache) == [4, 5, 2, 3]
    seen, _ = feed(cache, 3)
    assert seen == [3, 4, 5, 6, 7, 8]
    assert ring(cache) == [8, 5, 6, 7]


@pytest.mark.parametrize("window", [1, 2, 7, 8])
@pytest.mark.parametrize("steps", [(1,) * 30, (3,) * 10, (5, 1, 1, 9, 2, 1, 16), (40, 1, 40), (7, 1, 8, 8, 1)])
def test_every_query_sees_exactly_its_window(window, steps):
    cache = RollingBufferCache(window)
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


@pytest.mark.parametrize("window", [1, 5, 300, 1000])
def test_a_ring_never_has_more_slots_than_its_window(window):
    cache = RollingBufferCache(window)
    for n in (1, 299, 1, 250, 3 * window, 1):
        feed(cache, n)
        assert cache.keys.shape[2] <= window
    assert cache.nbytes == 2 * 4 * window


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
    assert sizes[0] == 2 * (8 + 6) * model.args.n_kv_heads * model.args.head_dim * 4


def test_mistral_7b_needs_512_mib_for_its_window_in_half_precision():
    config = {"model_type": "mistral", "hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8}
    config |= {"num_hidden_layers": 32, "intermediate_size": 14336, "vocab_size": 32000, "sliding_window": 4096}
    assert cache_nbytes(ModelArgs.from_config(config), 32_768, itemsize=2) == 512 * 1024 * 1024


def test_trim_forgets_the_newest_tokens():
    cache = RollingBufferCache(8)
    feed(cache, 7)
    cache.trim(4)
    seen, _ = feed(cache, 2)
    assert seen == [0, 1, 2, 3, 4]


def test_a_wrapped_ring_cannot_be_trimmed():
    cache = RollingBufferCache(8)
    feed(cache, 8)
    assert not cache.wrapped
    feed(cache, 1)
    assert cache.wrapped
    with pytest.raises(OptionError, match="cannot be taken back"):
        cache.trim(1)

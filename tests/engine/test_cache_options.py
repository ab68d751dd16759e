"""Keys and values in 8 bits, and a window with sinks where the model has none: against the reference and each other."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_config, tiny_model
from reference import forward, visible

from mistral_mlx import kernels
from mistral_mlx.errors import OptionError
from mistral_mlx.model.args import ModelArgs
from mistral_mlx.model.cache import RollingBufferCache, cache_nbytes, make_cache
from mistral_mlx.model.cache_options import CacheOptions

W, SLOTS = 20, 128
N = 2 * SLOTS + W + 30  # ids: more than two wraps
STEPS = (3, W + 1, SLOTS + 3, N)
CHOSEN = {  # windows of config.json, sinks
    "no window": (None, 0),
    "no window, sinks": (None, 4),
    "many sinks": (None, 64),
    "a longer window": (100, 4),
    "interleaved": ([None, 10], 4),
}
PATHS = ("native", "numpy", "gpu")


@pytest.fixture(params=PATHS)
def _all_paths(request, monkeypatch):
    """The native kernels, NumPy, and the operations that a GPU would get, computed on the CPU."""
    if request.param == "numpy":
        monkeypatch.setattr(kernels, "uses_native", lambda: False)
    if request.param == "gpu":
        monkeypatch.setattr(kernels, "on_cpu", lambda: False)


def random_ids(n=N, seed=1):
    return np.random.default_rng(seed).integers(0, 64, n)


def run(model, ids, step, cache=None):
    """Return logits ``[S, V]`` of `ids` fed `step` at a time."""
    cache = make_cache(model.args) if cache is None else cache
    parts = [model(mx.array(ids[None, i : i + step]), cache)[0] for i in range(0, len(ids), step)]
    return np.concatenate([np.array(part) for part in parts])


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize(("config_window", "sinks"), CHOSEN.values(), ids=CHOSEN)
@pytest.mark.usefixtures("_all_paths")
def test_any_step_sees_the_chosen_window_and_the_sinks(config_window, sinks, step):
    model, weights = tiny_model(choice=CacheOptions(W, sinks), sliding_window=config_window)
    ids = random_ids()
    cache = make_cache(model.args)
    found = [run(model, ids[: N - W], step, cache), run(model, ids[N - W :], 1, cache)]
    np.testing.assert_allclose(np.concatenate(found), forward(model.args, weights, ids), atol=3e-4)


def test_the_reference_sees_the_sinks_once():
    assert visible(6, 2, 2).astype(int).tolist() == [
        [1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 0, 1, 1, 0],
        [1, 1, 0, 0, 1, 1],
    ]


@pytest.mark.parametrize("wrong", [3, 5])
def test_a_sink_too_few_or_too_many_would_be_seen(wrong):
    model, weights = tiny_model(choice=CacheOptions(W, 4), sliding_window=None)
    other, _ = tiny_model(choice=CacheOptions(W, wrong), sliding_window=None)
    ids = random_ids(5 * W)
    assert np.abs(run(other, ids, 40) - forward(model.args, weights, ids))[W + 4 :].max() > 0.01


EIGHT_BITS = 0.1  # of the logits' size: codes are good to 1/254, but large random weights make every error larger


@pytest.mark.parametrize("step", [50, N])
@pytest.mark.parametrize("head_dim", [20, 80, 96])
@pytest.mark.parametrize(("window", "sinks"), [(None, 0), (W, 0), (W, 5)])
@pytest.mark.usefixtures("_all_paths")
def test_8_bits_stay_close_to_the_reference(window, sinks, head_dim, step):
    model, weights = tiny_model(choice=CacheOptions(window, sinks, 8), sliding_window=None, head_dim=head_dim)
    ids = random_ids()
    expected = forward(model.args, weights, ids)
    cache = make_cache(model.args)
    found = [run(model, ids[: N - W], step, cache), run(model, ids[N - W :], 1, cache)]
    error = np.concatenate(found) - expected
    assert np.sqrt((error**2).mean()) < EIGHT_BITS * np.sqrt((expected**2).mean())


@pytest.mark.parametrize("kv_bits", [16, 8])
@pytest.mark.parametrize(("window", "sinks"), [(None, 0), (W, 0), (W, 5), (64, 64)])
@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.skipif(not kernels.native.available, reason="NumPy's products depend on the number of rows")
def test_tokens_have_the_same_bits_in_steps_of_any_size(dtype, window, sinks, kv_bits):
    """Plain weights: up to 8 rows are multiplied alone. Tokens are taken back after the wraps too."""
    model, _ = tiny_model(choice=CacheOptions(window, sinks, kv_bits), sliding_window=None)
    model.set_dtype(dtype)
    rng, ids = np.random.default_rng(0), random_ids()
    expected, cache = run(model, ids, 1), make_cache(model.args)
    while cache[0].offset < N:
        start = cache[0].offset
        part = ids[start : start + rng.integers(1, 9)]
        assert run(model, part, 8, cache).tobytes() == expected[start : start + len(part)].tobytes()
        n_back = min(cache[0].offset, int(rng.choice([0, 0, 0, 1, len(part) - 1])))
        for layer in cache:
            layer.trim(n_back)


@pytest.mark.parametrize("kv_bits", [16, 8])
@pytest.mark.usefixtures("_all_paths")
def test_a_copy_goes_on_as_its_original_does(kv_bits):
    model, _ = tiny_model(choice=CacheOptions(W, 4, kv_bits), sliding_window=None)
    ids, cache = random_ids(), make_cache(model.args)
    run(model, ids[:200], 50, cache)
    copies = [layer.copy() for layer in cache]
    expected = run(model, ids[200:], 7, cache)
    assert run(model, ids[200:], 7, copies).tobytes() == expected.tobytes()


@pytest.mark.parametrize("kv_bits", [16, 8])
def test_a_chosen_window_keeps_memory_flat_for_ten_windows(kv_bits):
    model, _ = tiny_model(choice=CacheOptions(W, 4, kv_bits), sliding_window=None)
    cache, sizes = make_cache(model.args), set()
    for _ in range(10):
        run(model, random_ids(W), W, cache)
        sizes.add(sum(layer.nbytes for layer in cache))
    row = model.args.head_dim + 4 if kv_bits == 8 else 4 * model.args.head_dim
    assert sizes == {2 * 2 * (4 + SLOTS) * model.args.n_kv_heads * row}
    assert sizes == {cache_nbytes(model.args, n, itemsize=4) for n in (W, 10 * W)}


def args_of(**changes):
    return ModelArgs.from_config(tiny_config(**changes))


def test_a_ring_of_8_bits_is_15_times_smaller_than_a_full_cache_of_16_bits():
    """Of Mistral 7B, after 32,768 tokens."""
    shape = {"hidden_size": 4096, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32}
    full, ring = args_of(**shape, sliding_window=None), args_of(**shape, sliding_window=4096)
    ring = CacheOptions(kv_bits=8).applied(ring)
    ratio = cache_nbytes(full, 32_768, itemsize=2) / cache_nbytes(ring, 32_768, itemsize=2)
    assert 15 < ratio < 15.5


@pytest.mark.parametrize(
    ("before", "after"), [(None, (100, 100)), (4096, (100, 100)), ([None, 50], (100, 50)), ([200, None], (100, 100))]
)
def test_a_window_is_for_the_layers_that_see_more(before, after):
    args = args_of(sliding_window=before)
    chosen = CacheOptions(100, 4).applied(args)
    assert (chosen.sliding_window, chosen.trained_windows) == (after, args.sliding_window)
    assert chosen.context_limit == args.context_limit
    assert [layer.sinks for layer in make_cache(chosen)] == [4 if a == 100 else 0 for a in after]
    again = CacheOptions(90).applied(chosen)
    assert (again.sliding_window, again.trained_windows) == (tuple(min(w, 90) for w in after), args.sliding_window)


@pytest.mark.parametrize(
    ("options", "window", "message"),
    [
        (CacheOptions(kv_bits=4), None, "kv_bits is 4; it must be 16 or 8"),
        (CacheOptions(100, 65), None, "sinks is 65; it must be 0 to 64"),
        (CacheOptions(100, -1), None, "sinks is -1"),
        (CacheOptions(sinks=4), None, "sinks need a window"),
        (CacheOptions(0), None, "window is 0"),
        (CacheOptions(512), None, "the model sees no more than 512 tokens"),
        (CacheOptions(8), 8, "the model sees no more than 8 tokens"),
    ],
)
def test_what_makes_no_sense_is_refused(options, window, message):
    with pytest.raises(OptionError, match=message):
        options.applied(args_of(sliding_window=window))


def test_what_is_not_finite_does_not_become_finite():
    for wrong in (mx.nan, mx.inf, -mx.inf):
        x = mx.array([[1.0, wrong, 2.0, 3.0], [1.0, 2.0, 3.0, 4.0]])
        result = np.array(kernels.decoded(kernels.encoded(x), mx.float32))
        assert np.isnan(result[0]).all()
        assert np.abs(result[1] - [1, 2, 3, 4]).max() <= 4 / 254


@pytest.mark.usefixtures("_all_paths")
def test_a_query_that_sees_a_key_that_is_not_finite_is_not_finite():
    cache = RollingBufferCache(W, kv_bits=8)
    q, wrong = mx.ones((1, 1, 1, 4)), mx.full((1, 1, 1, 4), mx.inf)
    for position in range(W):
        part = wrong if position == 0 else q
        ring = cache.returns_ring(1)
        k, v = cache.update_and_fetch(part, part)
        result = np.array(kernels.attention(q, k, v, scale=1.0, window=W, position=position, ring=ring))
        assert np.isnan(result).all()


def test_turning_queries_and_keys_keeps_scores():
    for head_dim in (2, 20, 64, 96):
        q, k = (mx.random.normal((3, 5, head_dim), key=mx.random.key(i)) for i in range(2))
        turned = kernels.turned(q) @ kernels.turned(k).swapaxes(-1, -2)
        np.testing.assert_allclose(np.array(turned), np.array(q @ k.swapaxes(-1, -2)), atol=1e-4)

"""The fast model against the slow reference, for all ways to cut a text into steps."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_model
from reference import forward, visible

from mistral_mlx import kernels
from mistral_mlx.model.cache import make_cache

W = 8
SLOTS = 128  # of the ring for W tokens
LENGTHS = (1, W, 5 * W + 3, SLOTS - 1, SLOTS + 1, 2 * SLOTS + W + 3)
STEPS = (1, 3, W, W + 1, 10 * W, SLOTS + 3)
WINDOWS = {"windowed": W, "full": None, "interleaved": [W, None], "two windows": [W, 5]}


@pytest.fixture(params=["cpu", "gpu"])
def _both_paths(request, monkeypatch):
    """The products that a GPU would get, computed on the CPU: the formulas are tested, not the speed."""
    if request.param == "gpu":
        monkeypatch.setattr(kernels, "on_cpu", lambda: False)


def random_ids(n, *, seed=1, vocab_size=64):
    return np.random.default_rng(seed).integers(0, vocab_size, n)


def run(model, ids, *, step, cache=None):
    """Return logits ``[S, V]`` of `ids` fed `step` at a time."""
    cache = make_cache(model.args) if cache is None else cache
    parts = [model(mx.array(ids[None, i : i + step]), cache)[0] for i in range(0, len(ids), step)]
    return np.concatenate([np.array(part) for part in parts])


@pytest.mark.parametrize("sliding_window", WINDOWS.values(), ids=WINDOWS)
@pytest.mark.parametrize("step", STEPS)
@pytest.mark.usefixtures("_both_paths")
def test_any_prefill_step_size_then_decode_matches_the_reference(sliding_window, step):
    model, weights = tiny_model(sliding_window=sliding_window)
    ids = random_ids(max(LENGTHS) + 2 * W)
    expected = forward(model.args, weights, ids)
    for n in LENGTHS:
        cache = make_cache(model.args)
        prefilled = run(model, ids[:n], step=step, cache=cache)
        decoded = run(model, ids[n : n + 2 * W], step=1, cache=cache)
        np.testing.assert_allclose(np.concatenate([prefilled, decoded]), expected[: n + 2 * W], atol=3e-4)
        assert {layer.offset for layer in cache} == {n + 2 * W}


@pytest.mark.parametrize("wrong", [W - 1, W + 1])
def test_a_window_off_by_one_would_be_seen(wrong):
    model, weights = tiny_model()
    other, _ = tiny_model(sliding_window=wrong)
    ids = random_ids(5 * W)
    expected = forward(model.args, weights, ids)
    assert np.abs(run(other, ids, step=40) - expected)[W + 1 :].max() > 0.01


@pytest.mark.parametrize("sliding_window", WINDOWS.values(), ids=WINDOWS)
def test_turn_by_turn_matches_all_at_once(sliding_window):
    """Four turns, each a prefill and some decoding, cross three wraps."""
    model, weights = tiny_model(sliding_window=sliding_window)
    ids = random_ids(3 * W + 20)
    cache, logits, start = make_cache(model.args), [], 0
    for n_prompt, n_answer in ((5, 4), (11, 2), (1, 9), (W + 3, 1)):
        logits.append(run(model, ids[start : start + n_prompt], step=7, cache=cache))
        start += n_prompt
        logits.append(run(model, ids[start : start + n_answer], step=1, cache=cache))
        start += n_answer
    np.testing.assert_allclose(np.concatenate(logits), forward(model.args, weights, ids[:start]), atol=1e-4)


def test_without_a_cache_the_ids_start_at_position_zero():
    model, weights = tiny_model()
    ids = random_ids(3 * W)
    np.testing.assert_allclose(np.array(model(mx.array(ids[None])))[0], forward(model.args, weights, ids), atol=1e-4)


def test_rows_of_a_batch_do_not_touch_each_other():
    model, weights = tiny_model()
    ids = np.stack([random_ids(20, seed=1), random_ids(20, seed=2)])
    cache = make_cache(model.args)
    logits = [np.array(model(mx.array(ids[:, i : i + 5]), cache)) for i in range(0, 20, 5)]
    expected = np.stack([forward(model.args, weights, row) for row in ids])
    np.testing.assert_allclose(np.concatenate(logits, axis=1), expected, atol=1e-4)


@pytest.mark.parametrize(
    "changes",
    [
        {"tie_word_embeddings": True},
        {"num_key_value_heads": 1},
        {"num_key_value_heads": 4},
        {"head_dim": 12},
        {"rope_theta": 1e6},
        {"rms_norm_eps": 0.5},
    ],
    ids=lambda changes: "-".join(changes),
)
def test_every_hyper_parameter_counts(changes):
    model, weights = tiny_model(**changes)
    ids = random_ids(2 * W + 1)
    np.testing.assert_allclose(run(model, ids, step=5), forward(model.args, weights, ids), atol=1e-4)


@pytest.mark.parametrize(("is_cpu", "inside"), [(True, mx.float32), (False, mx.float16)])
def test_activations_are_float32_on_the_cpu_and_as_stored_elsewhere_and_logits_always_float32(
    monkeypatch, is_cpu, inside
):
    monkeypatch.setattr(kernels, "on_cpu", lambda: is_cpu)
    model, _ = tiny_model()
    model.set_dtype(mx.float16)
    cache = make_cache(model.args)
    hidden = model.hidden(mx.array([[1, 2, 3]]), cache)
    assert hidden.dtype == inside
    assert {layer.keys.dtype for layer in cache} == {mx.float16 if kernels.native.available else inside}
    assert model.logits(hidden).dtype == mx.float32


def test_hidden_and_logits_are_the_whole_model():
    model, _ = tiny_model()
    ids = mx.array([[3, 1, 4, 1, 5]])
    last = model.logits(model.hidden(ids, make_cache(model.args))[:, -1])
    assert mx.allclose(last, model(ids)[:, -1], atol=1e-5)


def test_reference_window_counts_the_token_itself():
    assert visible(5, 3).sum(axis=1).tolist() == [1, 2, 3, 3, 3]


@pytest.mark.parametrize("window", [None, 8])
def test_keys_and_values_in_half_precision_move_the_logits_by_their_rounding(window):
    """Over several wraps, token by token; 2^-11 is what half precision rounds by."""
    model, weights = tiny_model(sliding_window=window)
    model.set_dtype(mx.float16)
    ids, cache = [int(i) for i in np.random.default_rng(0).integers(0, 64, 40)], make_cache(model.args)
    result = np.concatenate([np.array(model(mx.array([[i]]), cache))[0] for i in ids])
    expected = forward(model.args, {name: w.astype(np.float16) for name, w in weights.items()}, ids)
    assert np.abs(result - expected).max() < 16 * 2**-11 * np.abs(expected).max()

"""Perplexity and KL divergence against NumPy in float64, and the windows of a text."""

import math
from itertools import pairwise

import mlx.core as mx
import numpy as np
import pytest
from helpers.models import tiny_model
from reference import forward

from mistral_mlx.errors import ModelError, OptionError
from mistral_mlx.measure.evaluation import Scoring, Window, evaluate, model_logits, windows
from mistral_mlx.measure.scores import MAX_NLL, Mean

IDS = [int(i) for i in np.random.default_rng(3).integers(3, 64, 900)]
STANDARD, STRIDED = {"context": 64}, {"context": 64, "stride": 20}


def log_softmax(logits):
    z = logits - logits.max(axis=1, keepdims=True)
    return z - np.log(np.exp(z).sum(axis=1, keepdims=True))


def chunks(ids, context, bos):
    """Return the chunks and scored positions of llama-perplexity, from its definition: token j + 1 is scored by j."""
    found = []
    for i in range(len(ids) // context):
        chunk = ids[i * context : (i + 1) * context]
        chunk[0] = chunk[0] if bos is None else bos
        found.append((chunk, list(range(context // 2, context - 1))))
    return found


def strided(ids, context, stride, bos):
    """Return the same for windows every `stride` ids, the last `stride` of each being scored."""
    found = []
    for end in range(context, len(ids) + 1, stride):
        chunk = ids[end - context : end]
        chunk[0] = chunk[0] if bos is None else bos
        found.append((chunk, list(range(context - 1 - stride, context - 1))))
    return found


def log_probabilities(model, weights, parts):
    """Return float64 ``[n, V]`` of all scored tokens, and the tokens."""
    rows = [log_softmax(forward(model.args, weights, chunk))[scored] for chunk, scored in parts]
    return np.concatenate(rows), [chunk[j + 1] for chunk, scored in parts for j in scored]


def fixed(rows, size=3):
    """Return a source that gives the rows of one window in blocks of `size`."""
    rows = np.asarray(rows, np.float32)
    return lambda window: (mx.array(rows[i : i + size]) for i in range(0, len(rows), size))


# Windows


@pytest.mark.parametrize("bos", [None, 1])
def test_windows_are_the_chunks_of_llama_perplexity(bos):
    found = windows(IDS, context=64, bos_id=bos)
    assert [(list(w.ids), list(range(w.first, 63))) for w in found] == chunks(IDS, 64, bos)
    assert [len(w.targets) for w in found] == [31] * 14


def test_a_window_of_512_scores_255_tokens():
    assert [(w.first, len(w.targets)) for w in windows(list(range(1024)), context=512)] == [(256, 255)] * 2


@pytest.mark.parametrize("stride", [1, 20, 63])
def test_with_a_stride_every_token_behind_the_first_window_is_scored_once(stride):
    found = windows(IDS, context=64, stride=stride, bos_id=1)
    assert [(list(w.ids), list(range(w.first, 63))) for w in found] == strided(IDS, 64, stride, 1)
    scored = [token for window in found for token in window.targets]
    assert scored == IDS[64 - stride : 64 - stride + len(scored)]
    assert len(IDS) - (64 - stride + len(scored)) < stride


def test_windows_stop_at_the_limit_and_at_the_last_whole_one():
    assert len(windows(IDS[:64], context=64)) == 1
    assert windows(IDS, context=64, limit=2) == windows(IDS[:191], context=64)


@pytest.mark.parametrize(
    ("numbers", "said"),
    [
        ({"context": 2}, "context is 2; it must be at least 3"),
        ({"context": 64, "stride": 64}, "stride is 64; it must be 1 to 63"),
        ({"context": 64, "stride": 0}, "stride is 0"),
        ({"context": 64, "limit": 0}, "the number of windows is 0"),
        ({"context": 901}, "the text has 900 tokens, and one window takes 901"),
    ],
)
def test_impossible_numbers_are_refused_by_name(numbers, said):
    with pytest.raises(OptionError, match=said):
        windows(IDS, **numbers)


# Figures


@pytest.mark.parametrize("window", [None, 8], ids=["full", "wrapped"])
@pytest.mark.parametrize("protocol", [STANDARD, STRIDED], ids=["standard", "strided"])
def test_perplexity_is_that_of_the_definition(protocol, window, exact_cache):
    model, weights = tiny_model(sliding_window=window)
    parts = chunks(IDS, 64, 1) if protocol is STANDARD else strided(IDS, 64, 20, 1)
    log_p, tokens = log_probabilities(model, weights, parts)
    nll = -log_p[np.arange(len(tokens)), tokens]
    result = evaluate(windows(IDS, **protocol, bos_id=1), model_logits(model))
    assert (result.n_windows, result.n_tokens, result.comparison) == (len(parts), len(tokens), None)
    assert result.nll.value == pytest.approx(nll.mean(), rel=1e-6)
    assert result.perplexity.value == pytest.approx(np.exp(nll.mean()), rel=1e-6)
    error = math.sqrt(((nll**2).mean() - nll.mean() ** 2) / (len(nll) - 1))  # as llama.cpp computes it
    assert result.perplexity.error == pytest.approx(np.exp(nll.mean()) * error, rel=1e-6)


def test_windows_longer_than_a_step_are_read_in_steps(exact_cache):
    model, weights = tiny_model(sliding_window=[8, None], max_position_embeddings=1024)
    log_p, tokens = log_probabilities(model, weights, chunks(IDS, 600, None))
    result = evaluate(windows(IDS, context=600), model_logits(model))
    assert result.n_tokens == len(tokens) == 299
    assert result.nll.value == pytest.approx(-log_p[np.arange(299), tokens].mean(), rel=1e-6)


def test_the_comparison_is_that_of_the_definition(exact_cache):
    model, weights = tiny_model(max_position_embeddings=1024)
    base, base_weights = tiny_model(max_position_embeddings=1024)
    base_weights = {name: w + 0.02 * np.sin(np.arange(w.size)).reshape(w.shape) for name, w in weights.items()}
    base.load_weights([(name, mx.array(w.astype(np.float32))) for name, w in base_weights.items()])
    parts = chunks(IDS, 64, 1)
    (log_q, tokens), (log_p, _) = (log_probabilities(base, w, parts) for w in (weights, base_weights))
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=1)
    row = np.arange(len(tokens))
    nll, base_nll = -log_q[row, tokens], -log_p[row, tokens]
    same = (log_q.argmax(axis=1) == log_p.argmax(axis=1)).mean()
    delta = np.exp(-nll) - np.exp(-base_nll)
    n = len(tokens)

    c = evaluate(windows(IDS, **STANDARD, bos_id=1), model_logits(model), model_logits(base)).comparison
    assert c.reference_perplexity.value == pytest.approx(np.exp(base_nll.mean()), rel=1e-5)
    assert c.kl == pytest.approx((kl.mean(), kl.std() / math.sqrt(n - 1)), rel=1e-4)
    assert c.kl_max == pytest.approx(kl.max(), rel=1e-4)
    percentiles = {f"{p:g}": np.percentile(kl, p) for p in (0.1, 1, 5, 10, 50, 90, 95, 99, 99.9)}
    assert c.kl_percentiles == pytest.approx(percentiles, rel=1e-3)
    assert 0.5 < same < 1
    assert c.same_top == pytest.approx((same, math.sqrt(same * (1 - same) / (n - 1))))
    assert c.mean_delta_p.value == pytest.approx(delta.mean(), rel=1e-3)
    rms = math.sqrt((delta**2).mean())
    assert c.rms_delta_p == pytest.approx((rms, 0.5 / rms * (delta**2).std() / math.sqrt(n - 1)), rel=1e-3)
    assert c.correlation == pytest.approx(np.corrcoef(nll, base_nll)[0, 1], rel=1e-5)
    # llama.cpp adds variances and takes off the covariance; the error of the paired difference is the same number
    covariance = ((nll * base_nll).mean() - nll.mean() * base_nll.mean()) / (n - 1)
    error = math.sqrt((nll.var() + base_nll.var()) / (n - 1) - 2 * covariance)
    assert c.log_perplexity_ratio == pytest.approx((nll.mean() - base_nll.mean(), error), rel=1e-3)


def test_a_model_does_not_differ_from_itself():
    model, _ = tiny_model(max_position_embeddings=1024)
    c = evaluate(windows(IDS, context=64), model_logits(model), model_logits(model)).comparison
    assert (c.kl, c.kl_max, c.same_top, c.rms_delta_p) == (Mean(0, 0), 0, Mean(1, 0), Mean(0, 0))
    assert (c.perplexity_ratio, c.correlation) == (Mean(1, 0), pytest.approx(1))


def test_large_and_nearly_equal_logits_keep_their_kl():
    """In float32 sums of exponentials, or without taking off the maximum, both figures would be noise or infinite."""
    logits = np.full((1, 131072), 1000.0)
    near = logits.copy()
    near[0, 0] += 0.5
    p, q = (np.exp(log_softmax(np.float32(x).astype(np.float64))) for x in (near, logits))
    c = evaluate([Window((1, 2, 3), 1)], fixed(logits), fixed(near)).comparison
    assert c.kl.value == pytest.approx((p * np.log(p / q)).sum(), rel=1e-6)
    far = evaluate([Window((1, 2, 0), 1)], fixed([[0.0, -500.0]]), fixed([[-500.0, 0.0]])).comparison
    assert far.kl.value == pytest.approx(500)


def test_sources_need_not_cut_their_rows_alike_but_give_as_many_as_are_scored():
    rng = np.random.default_rng(0)
    window, q, p = Window(tuple(IDS[:12]), 4), rng.normal(size=(7, 64)), rng.normal(size=(7, 64))
    alike = evaluate([window], fixed(q, 7), fixed(p, 7))
    assert evaluate([window], fixed(q, 2), fixed(p, 3)) == alike
    with pytest.raises(ValueError, match="shorter"):
        evaluate([window], fixed(q[:6]), fixed(p))


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [0.0, -math.inf], [0.0, -MAX_NLL]])
def test_predictions_that_are_no_numbers_are_the_models_fault(bad):
    with pytest.raises(ModelError, match="weights are damaged"):
        evaluate([Window((0, 0, 1), 1)], fixed([bad]))
    with pytest.raises(ModelError, match="weights are damaged"):
        evaluate([Window((0, 0, 1), 1)], fixed([[0.0, 0.0]]), fixed([bad]))


@pytest.mark.parametrize(("context", "n_buckets"), [(600, 16), (20, 9), (64, 16)])
def test_the_curve_holds_every_token_once_in_order_of_position(context, n_buckets):
    model, _ = tiny_model(max_position_embeddings=1024)
    result = evaluate(windows(IDS, context=context), model_logits(model), model_logits(model))
    curve = result.curve
    assert len(curve) == n_buckets
    assert (curve[0].first, curve[-1].last) == (context // 2 + 1, context - 1)
    assert all(b.first == a.last + 1 for a, b in pairwise(curve))
    assert sum(b.n_tokens for b in curve) == result.n_tokens
    assert sum(b.n_tokens * b.nll for b in curve) / result.n_tokens == pytest.approx(result.nll.value)
    assert {b.kl for b in curve} == {0.0}


def test_a_bucket_has_the_tokens_at_its_positions():
    rows = np.zeros((3, 2))
    rows[:, 1] = [1, 2, 3]
    result = evaluate([Window((0, 0, 1, 1, 1), 1)] * 2, fixed(rows))
    expected = [(2, 2, 2), (3, 3, 2), (4, 4, 2)]
    assert [b[:3] for b in result.curve] == expected
    assert [b.nll for b in result.curve] == pytest.approx([math.log1p(math.exp(-x)) for x in (1, 2, 3)])
    assert result.curve[0].kl is None


def test_a_scoring_gives_the_figures_of_the_windows_so_far():
    model, _ = tiny_model(max_position_embeddings=1024)
    cut, scoring = windows(IDS, context=64, limit=3), Scoring(model_logits(model))
    for n, window in enumerate(cut, 1):
        scoring.add(window)
        assert (scoring.n_windows, scoring.result()) == (n, evaluate(cut[:n], model_logits(model)))


def test_progress_counts_windows():
    told = []
    cut = windows(IDS, context=64, limit=3)
    evaluate(cut, model_logits(tiny_model(max_position_embeddings=1024)[0]), progress=lambda *args: told.append(args))
    assert told == [("scoring", n, 3) for n in (1, 2, 3)]

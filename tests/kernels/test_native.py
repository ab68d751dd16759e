"""Native products against float64 and portable ones, on shapes no block size divides."""

import mlx.core as mx
import numpy as np
import pytest
from helpers.native import normal, packed
from helpers.rounding import FINE_LIMIT, rounded_values

from mistral_mlx.kernels import Norm, Weight, native

pytestmark = pytest.mark.skipif(not native.available, reason=f"no native kernels: {native.missing}")

FINE_STEP = 0.5 / FINE_LIMIT  # of a group's largest activation, which exact rounding moves others by
BFLOAT_STEP = 2.0**-9
DTYPES = [mx.float32, mx.float16, mx.bfloat16]
FLOAT_EPS = 2.0**-24  # of each of the sums that a float32 accumulator makes
ROWS = [1, 2, 8, 9, 12, 13, 33, 70]


def quantized_matmul(kernels, x, arrays, group_size, bits):
    return np.array(kernels.products(mx.array(x), [Weight(*arrays, group_size, bits)])[0])


def matmul(kernels, x, weight):
    return np.array(kernels.products(mx.array(x), [Weight(weight)])[0])


def within(result, x, weight, step):
    """Compare with the exact product; each activation may be off by `step` of the largest of its row."""
    x = x.astype(np.float64)
    largest = np.abs(x).max(axis=1, keepdims=True)
    bound = (step * largest + FLOAT_EPS * weight.shape[1] * largest) * np.abs(weight).sum(axis=1) + 1e-30
    assert result.shape == (len(x), len(weight))
    assert (np.abs(result - x @ weight.T) <= bound).all()


def as_bfloat(x):
    return np.array(mx.array(x).astype(mx.bfloat16).astype(mx.float32))


@pytest.fixture(params=[False, True], ids=["rotated", "exact"])
def exact(request, kernels):
    kernels.set_exact(request.param)
    yield request.param
    kernels.set_exact(False)


@pytest.mark.parametrize("dtype", [mx.float32, mx.float16, mx.bfloat16])
@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("group_size", [32, 64, 128])
def test_the_product_is_exactly_that_of_the_rounded_activations(kernels, exact, group_size, bits, dtype):
    for n_out, n_groups in ((1, 1), (19, 3), (33, 35)):
        arrays, weight = packed(n_out, group_size * n_groups, group_size, bits, dtype)
        for n_rows in ROWS if n_groups == 3 and dtype == mx.float16 else (1, 3, 17):
            x = normal(n_rows, group_size * n_groups, seed=n_rows)
            x[0, 7] *= 30
            result = quantized_matmul(kernels, x, arrays, group_size, bits)
            within(result, rounded_values(x, group_size, bits, exact=exact), weight, 0)


def test_exact_rounding_loses_next_to_nothing_and_rotated_rounding_little(kernels, exact):
    """An outlier in each group would cost a rounding to 8 bits without the rotation 2 % of the result."""
    arrays, weight = packed(64, 64 * 40, 64, 4, mx.bfloat16)
    x = normal(8, 64 * 40, seed=1)
    x[:, ::64] *= 20
    result, expected = quantized_matmul(kernels, x, arrays, 64, 4), x.astype(np.float64) @ weight.T
    noise = np.sqrt(((result - expected) ** 2).mean() / (expected**2).mean())
    assert noise < (1e-4 if exact else 8e-3)
    assert exact or noise > 1e-3


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
def test_rows_together_have_the_bits_of_each_alone(kernels, exact, bits):
    """Few and many rows take other ways through the kernels."""
    for group_size, n_groups in ((32, 9), (64, 33), (128, 9)):
        arrays, _ = packed(45, group_size * n_groups, group_size, bits, mx.float16)
        x = normal(20, group_size * n_groups, seed=4)
        alone = np.concatenate([quantized_matmul(kernels, row, arrays, group_size, bits) for row in np.split(x, 20)])
        for n_rows in range(2, 21):
            together = quantized_matmul(kernels, x[:n_rows], arrays, group_size, bits)
            assert together.tobytes() == alone[:n_rows].tobytes()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("n_groups", [1, 3, 5])
def test_every_code_is_the_one_that_was_packed(kernels, n_groups, bits):
    """A single 1 in the activations brings out one column of codes; the rows end with half a vector."""
    n_out, n_in = 21, 32 * n_groups
    codes = np.random.default_rng(bits).integers(0, 2**bits, (n_out, n_in))
    stream = (codes[..., None] >> np.arange(bits) & 1).astype(np.uint8).reshape(n_out, -1)
    words = np.packbits(stream, axis=1, bitorder="little").view(np.uint32)
    ones = mx.ones((n_out, n_groups))
    kernels.set_exact(True)
    for n_rows in (1, n_in):  # few and many
        for x in np.split(np.eye(n_in, dtype=np.float32), n_in // n_rows):
            result = quantized_matmul(kernels, x, (mx.array(words), ones, 0 * ones), 32, bits)
            assert (np.abs(result - x @ codes.T) < 1e-4).all()
    kernels.set_exact(False)


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 8])
@pytest.mark.parametrize("n_rows", [1, 21])
def test_every_set_gives_the_bits_of_the_portable_one(kernels, exact, n_rows, bits):
    arrays, _ = packed(45, 64 * 33, 64, bits, mx.float32)
    x = normal(n_rows, 64 * 33, seed=2)
    result = quantized_matmul(kernels, x, arrays, 64, bits)
    kernels.select("portable")
    assert result.tobytes() == quantized_matmul(kernels, x, arrays, 64, bits).tobytes()


@pytest.mark.parametrize("dtype", DTYPES)
def test_matmul_is_that_of_float32(kernels, exact_products, dtype):
    for n_out, n_in in ((1, 1), (19, 77), (45, 600), (33, 2100)):
        weight = mx.array(normal(n_out, n_in)).astype(dtype)
        for n_rows in [*ROWS, 140]:
            x = normal(n_rows, n_in, seed=n_rows)
            within(matmul(kernels, x, weight), x, np.array(weight.astype(mx.float32), np.float64), 0)


@pytest.mark.parametrize("n_rows", [1, 5, 50])
def test_bfloat16_weights_meet_activations_rounded_at_most_to_bfloat16(kernels, n_rows):
    weight = mx.array(normal(45, 600)).astype(mx.bfloat16)
    exact_weight = np.array(weight.astype(mx.float32), np.float64)
    x = normal(n_rows, 600, seed=n_rows)
    result = matmul(kernels, x, weight)
    within(result, x, exact_weight, BFLOAT_STEP)
    rounds = kernels.name() in ("avx512-bf16", "avx512-amx")
    assert (result.tobytes() == matmul(kernels, as_bfloat(x), weight).tobytes()) == rounds
    within(matmul(kernels, as_bfloat(x), weight), as_bfloat(x), exact_weight, 0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n_in", [1, 77, 300, 1000, 2100])
def test_a_row_has_the_same_bits_alone_and_among_others(kernels, n_in, dtype):
    weight, x = mx.array(normal(70, n_in)).astype(dtype), normal(140, n_in, seed=1)
    alone = np.concatenate([matmul(kernels, row[None], weight) for row in x])
    try:
        for n_rows in [*range(2, 21), 36, 37, 140]:
            kernels.set_threads(n_rows % 8 + 1)
            assert matmul(kernels, x[:n_rows], weight).tobytes() == alone[:n_rows].tobytes()
    finally:
        kernels.set_threads(0)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_not_finite_stays_visible_in_plain_products(kernels, dtype, bad):
    weight = mx.array(normal(5, 77)).astype(dtype)
    for n_rows in (1, 9, 50):
        x = normal(n_rows, 77)
        x[0, 76] = bad
        result = matmul(kernels, x, weight)
        assert not np.isfinite(result[0]).any()
        assert np.isfinite(result[1:]).all()


@pytest.mark.parametrize("n_rows", [1, 4, 30])
def test_any_number_of_threads_gives_the_same_bits(kernels, n_rows):
    arrays, _ = packed(301, 1152, 64, 4, mx.float16)
    x, dense = normal(n_rows, 1152, seed=3), mx.array(normal(301, 1152))
    results = []
    for threads in (1, 2, 3, 7):
        kernels.set_threads(threads)
        both = quantized_matmul(kernels, x, arrays, 64, 4), matmul(kernels, x, dense)
        results.append([r.tobytes() for r in both])
    kernels.set_threads(0)
    assert results == results[:1] * 4


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("n_rows", [1, 9])
def test_what_is_not_finite_stays_visible(kernels, n_rows, bad):
    arrays, _ = packed(5, 256, 64, 4, mx.float16)
    x = normal(n_rows, 256)
    x[0, 100] = bad
    result = quantized_matmul(kernels, x, arrays, 64, 4)
    assert not np.isfinite(result[0]).any()
    assert np.isfinite(result[1:]).all()


@pytest.mark.parametrize("size", [0.0, 1e-38, 1e30])
def test_the_smallest_and_largest_activations_are_numbers(kernels, size):
    arrays, weight = packed(5, 128, 64, 8, mx.float32)
    x = np.full((1, 128), size, np.float32)
    result = quantized_matmul(kernels, x, arrays, 64, 8)
    assert np.abs(result - x @ weight.T).max() <= FINE_STEP * max(size, 1e-30) * 128 * np.abs(weight).max()


def test_rows_that_do_not_lie_in_order_are_read_in_order(kernels):
    arrays, weight = packed(7, 64, 64, 4, mx.float32)
    x = normal(64, 5)
    result = kernels.products(mx.array(x).T, [Weight(*arrays, 64, 4)])[0]
    within(np.array(result), rounded_values(x.T.copy(), 64, 4), weight, 0)


def test_what_does_not_fit_together_is_refused(kernels):
    arrays, _ = packed(7, 64, 64, 4, mx.float32)
    with pytest.raises(ValueError, match="do not fit together"):
        kernels.products(mx.zeros((1, 128)), [Weight(*arrays, 64, 4)])
    with pytest.raises(ValueError, match="group_size"):
        kernels.products(mx.zeros((1, 64)), [Weight(*arrays, 16, 4)])


@pytest.mark.parametrize("n_rows", [1, 3, 8, 9, 40])
def test_what_stands_around_a_product_is_computed_with_it(kernels, n_rows):
    """norm, several products of one input, the residual and the gate, as single steps give them."""
    arrays, gate = packed(45, 128, 64, 4, mx.float16)
    eight, up = packed(45, 128, 64, 8, mx.float16, seed=1)
    six, other = packed(45, 128, 64, 6, mx.float16, seed=5)
    dense = normal(128, 45, seed=2)
    x, weight = normal(n_rows, 128, seed=3), normal(128, seed=4)
    h = x / np.sqrt((x.astype(np.float64) ** 2).mean(axis=1, keepdims=True) + 1e-3) * weight
    norm, packings = Norm(mx.array(weight), 1e-3), [Weight(*arrays, 64, 4), Weight(*eight, 64, 8)]
    kernels.set_exact(True)
    bound = 8 * FINE_STEP * np.abs(h).max() * np.abs(gate).sum(axis=1).max()
    three = kernels.products(mx.array(x), [*packings, Weight(*six, 64, 6)], norm)
    assert all(np.abs(np.array(y) - h @ w.T).max() <= bound for y, w in zip(three, (gate, up, other), strict=True))
    gated, raised = h @ gate.T, h @ up.T
    expected = gated / (1 + np.exp(-gated)) * raised
    result = np.array(kernels.swiglu(mx.array(x), *packings, norm))
    assert np.abs(result - expected).max() <= bound * (np.abs(raised).max() + np.abs(gated).max())
    added = np.array(kernels.add_product(mx.array(x), mx.array(result), Weight(mx.array(dense))))
    kernels.set_exact(False)
    whole = x + result.astype(np.float64) @ dense.astype(np.float64).T
    assert np.abs(added - whole).max() <= 1e-5 * (np.abs(result) @ np.abs(dense.T)).max()

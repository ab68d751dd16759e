// AVX2 with FMA and F16C; compiled a second time with AVX-VNNI. See contract.h for the layout and the contract.
//
// Without VNNI, maddubs adds two products of an unsigned and a signed byte in 16 bits and would saturate on codes above
// 128. So 8-bit codes are taken as two halves of 4 bits: with codes below 16 no sum of four products leaves 16 bits.
#include <immintrin.h>

#include "../parts/attention.h"
#include "../parts/scalars.h"
#include "../parts/search.h"
#include "../parts/tiles.h"

namespace kernels {
namespace {

constexpr int LANES = 8;
constexpr int BYTES = 32;
constexpr int AHEAD = 8;  // rows, into the L2 cache, see avx512.cpp

// 8 floats from element i on; those from `n` on are 0 and not read.
template <Float T>
__m256 load(const void* p, int64_t i, int64_t n) {
  constexpr int64_t SIZE = T == Float::f32 ? 4 : 2;
  const char* at = static_cast<const char*>(p) + i * SIZE;
  alignas(32) char copy[LANES * 4] = {};
  if (n < LANES) {
    std::memcpy(copy, at, n * SIZE);
    at = copy;
  }
  if constexpr (T == Float::f32) return _mm256_loadu_ps(reinterpret_cast<const float*>(at));
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(at));
  if constexpr (T == Float::f16) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

__m256i load_bytes(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

// A vector of what is left of a row: 64 codes of 4 bits, 32 of 8 bits, or 32 in pairs.
template <int BITS>
__m256i load_codes(const uint8_t* at, int64_t left) {
  if constexpr (BITS != 4 && BITS != 8) return (__m256i)pairs<BITS>(at, left);
  if (left >= BYTES) return load_bytes(at);
  return _mm256_zextsi128_si256(
      _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));  // a last group of 32 inputs of 4 bits
}

float total(__m256 v) {
  const __m128 four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
  return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
}

// acc + sums of four neighbouring products. SMALL: no code is above 63, and two products fit into 16 bits.
template <bool SMALL>
__m256i dot4(__m256i acc, __m256i codes, __m256i x) {
#ifdef __AVXVNNI__
  return _mm256_dpbusd_avx_epi32(acc, codes, x);
#else
  if constexpr (SMALL)
    return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, x), _mm256_set1_epi16(1)));
  const __m256i mask = _mm256_set1_epi8(15);
  const __m256i low = _mm256_and_si256(codes, mask), high = _mm256_and_si256(_mm256_srli_epi16(codes, 4), mask);
  acc = _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(low, x), _mm256_set1_epi16(1)));
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(high, x), _mm256_set1_epi16(16)));
#endif
}

template <int BITS>
__m256i dot(__m256i b, const int8_t* p) {
  __m256i sum = _mm256_setzero_si256();
  if constexpr (BITS == 4) {
    const __m256i mask = _mm256_set1_epi8(15);
    const __m256i low = _mm256_and_si256(b, mask), high = _mm256_and_si256(_mm256_srli_epi16(b, 4), mask);
    sum = dot4<true>(dot4<true>(sum, low, load_bytes(p)), high, load_bytes(p + BYTES));
    sum = _mm256_slli_epi32(sum, 8);
    return dot4<true>(dot4<true>(sum, low, load_bytes(p + 2 * BYTES)), high, load_bytes(p + 3 * BYTES));
  }
  if constexpr (BITS != 8)
    return _mm256_add_epi32(_mm256_madd_epi16((__m256i)even<BITS>((Pairs)b), load_bytes(p)),
                            _mm256_madd_epi16((__m256i)odd<BITS>((Pairs)b), load_bytes(p + BYTES)));
  sum = _mm256_slli_epi32(dot4<false>(sum, b, load_bytes(p)), 8);
  return dot4<false>(sum, b, load_bytes(p + BYTES));
}

template <int BITS, Float T, int R>
void few(const Packed& w, const Fine& x, float* y, int64_t n) {
  constexpr int64_t CODES = BITS == 4 ? 2 * BYTES : BYTES;
  const int64_t groups = w.groups(), row_bytes = w.row_bytes();
  const __m128i shift = _mm_cvtsi32_si128(log2_group(w.group));
  const __m256i lane_input =
      _mm256_mullo_epi32(_mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0), _mm256_set1_epi32(CODES / LANES));
  __m256 acc[R], bias[R], scales[R];
  for (int r = 0; r < R; ++r) acc[r] = bias[r] = _mm256_setzero_ps();
  const uint8_t* row = w.codes + n * row_bytes;
  for (int64_t g = 0; g < groups; g += LANES) {
    const __m256 x_scales = _mm256_loadu_ps(x.scales + g), x_sums = _mm256_loadu_ps(x.sums + g);
    for (int r = 0; r < R; ++r) {
      scales[r] = _mm256_mul_ps(load<T>(w.scales, (n + r) * groups + g, groups - g), x_scales);
      bias[r] = _mm256_fmadd_ps(load<T>(w.biases, (n + r) * groups + g, groups - g), x_sums, bias[r]);
    }
    const int64_t start = g * w.group, end = g + LANES < groups ? start + LANES * w.group : w.n_in;
    for (int64_t k = start; k < end; k += CODES) {
      const __m256i group_of_lane =
          _mm256_srl_epi32(_mm256_add_epi32(lane_input, _mm256_set1_epi32(static_cast<int>(k - start))), shift);
      const uint8_t* at = row + k * BITS / 8;
      const int64_t left = (w.n_in - k) * BITS / 8;
      for (int r = 0; r < R; ++r) {
        _mm_prefetch(at + (r + AHEAD) * row_bytes, _MM_HINT_T1);
        const __m256i b = load_codes<BITS>(at + r * row_bytes, left);
        acc[r] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(dot<BITS>(b, x.planes + 2 * k)),
                                 _mm256_permutevar8x32_ps(scales[r], group_of_lane), acc[r]);
      }
    }
  }
  for (int r = 0; r < R; ++r) y[n + r] = total(_mm256_add_ps(acc[r], bias[r]));
}

// 32 codes of a row from input k on.
template <int BITS>
__m256i codes_in_order(const uint8_t* row, int64_t k, int64_t left) {
  const uint8_t* at = row + k * BITS / 8;
  if constexpr (BITS == 8) return load_bytes(at);
  if constexpr (BITS != 4) return (__m256i)widened<BITS>(at, left);
  const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
  return _mm256_and_si256(_mm256_or_si256(b, _mm256_slli_epi16(b, 4)), _mm256_set1_epi8(15));
}

// The codes of a block lie as [DEPTH / 4][TILE][4].
template <int BITS>
void unpack_bits(const Packed& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, Block* block) {
  for (int64_t i = 0; i < TILE; ++i) {
    const int64_t n = n0 + i;
    const uint8_t* row = w.codes + n * w.row_bytes();
    for (int64_t k = k0; k < k1; k += BYTES) {
      alignas(32) uint8_t codes[BYTES] = {};
      if (n < n1)
        _mm256_store_si256(reinterpret_cast<__m256i*>(codes), codes_in_order<BITS>(row, k, (w.n_in - k) * BITS / 8));
      for (int j = 0; j < BYTES; j += 4) std::memcpy(block->codes + (k - k0 + j) * TILE + i * 4, codes + j, 4);
    }
    unpack_lines(w, n, n1, k0, k1, i, block);
  }
}

void unpack(const Packed& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, Block* block) {
  with_bits(w.bits, [&]<int BITS> { unpack_bits<BITS>(w, n0, n1, k0, k1, block); });
}

// M rows times 16 outputs of the block, from `half` on.
template <int M, bool SMALL>
void many(const Block& block, int64_t half, const Packed& w, const Rows& x, int64_t row, int64_t k0, int64_t k1,
          float* y, int64_t y_stride, int64_t n_left) {
  __m256 tile[M][2];
  for (int m = 0; m < M; ++m) tile[m][0] = tile[m][1] = _mm256_setzero_ps();
  const int64_t stride = x.planes * x.stride;
  const int8_t* codes = x.codes + row * stride + k0;
  const float* scales = x.scales + row * x.group_stride + k0 / w.group;
  const float* sums = x.sums + row * x.group_stride + k0 / w.group;
  const int64_t n_groups = (k1 - k0) / w.group;
  for (int64_t g = 0; g < n_groups; ++g) {
    __m256i acc[M][2];
    for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = _mm256_setzero_si256();
    for (int plane = 0; plane < x.planes; ++plane) {
      const uint8_t* at = block.codes + (g * w.group * TILE) + half * 4;
      const int8_t* code = codes + g * w.group + plane * x.stride;
      if (plane == 1)
        for (int m = 0; m < M; ++m)
          for (int j = 0; j < 2; ++j) acc[m][j] = _mm256_slli_epi32(acc[m][j], 8);
      for (int k = 0; k < w.group; k += 4, at += 4 * TILE, code += 4) {
        const __m256i b0 = load_bytes(at), b1 = load_bytes(at + 32);
#pragma GCC unroll 4
        for (int m = 0; m < M; ++m) {
          int32_t four;
          std::memcpy(&four, code + m * stride, 4);
          const __m256i a = _mm256_set1_epi32(four);
          acc[m][0] = dot4<SMALL>(acc[m][0], b0, a);
          acc[m][1] = dot4<SMALL>(acc[m][1], b1, a);
        }
      }
    }
    for (int j = 0; j < 2; ++j) {
      const __m256 scale = _mm256_load_ps(block.scales + g * TILE + half + j * LANES);
      const __m256 bias = _mm256_load_ps(block.biases + g * TILE + half + j * LANES);
      for (int m = 0; m < M; ++m) {
        const __m256 factor = _mm256_mul_ps(scale, _mm256_set1_ps(scales[m * x.group_stride + g]));
        tile[m][j] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[m][j]), factor, tile[m][j]);
        tile[m][j] = _mm256_fmadd_ps(bias, _mm256_set1_ps(sums[m * x.group_stride + g]), tile[m][j]);
      }
    }
  }
  for (int m = 0; m < M; ++m)
    for (int j = 0; j < 2; ++j)
      if (n_left > j * LANES)
        store(y + (row + m) * y_stride + j * LANES, n_left - j * LANES, k0 > 0, (Vector)tile[m][j]);
}

template <bool SMALL>
void many_all(const Block& block, const Packed& w, const Rows& x, int64_t k0, int64_t k1, float* y, int64_t y_stride,
              int64_t n_left) {
  for (int64_t half = 0; half < TILE && half < n_left; half += 2 * LANES)
    abreast<4>(0, x.rows, [&]<int M>(int64_t row) {
      many<M, SMALL>(block, half, w, x, row, k0, k1, y + half, y_stride, n_left - half);
    });
}

void multiply(const Block& block, const Packed& w, const Rows& x, int64_t k0, int64_t k1, float* y, int64_t y_stride,
              int64_t n_left) {
  (w.bits == 8 ? many_all<false> : many_all<true>)(block, w, x, k0, k1, y, y_stride, n_left);
}

template <Float T>
void dense_row_of(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  for (int64_t n = n0; n < n1; ++n) {
    __m256 acc[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int64_t k = 0; k < w.n_in; k += LANES) {
      __m256& sum = acc[k / LANES % 2];
      sum = _mm256_fmadd_ps(load<T>(w.weights, n * w.n_in + k, w.n_in - k), load<Float::f32>(x, k, w.n_in - k), sum);
    }
    y[n] = total(_mm256_add_ps(acc[0], acc[1]));
  }
}

void dense_row(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  with_type(w.type, [&]<Float T> { dense_row_of<T>(w, x, y, n0, n1); });
}

template <int M>
void dense_many(const float* block, int64_t half, const float* x, int64_t x_stride, int64_t k0, int64_t k1, float* y,
                int64_t y_stride, int64_t n_left) {
  __m256 acc[M][2];
  for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = _mm256_setzero_ps();
  for (int64_t k = k0; k < k1; ++k) {
    const float* at = block + (k - k0) * TILE + half;
    const __m256 b0 = _mm256_load_ps(at), b1 = _mm256_load_ps(at + LANES);
    for (int m = 0; m < M; ++m) {
      const __m256 a = _mm256_set1_ps(x[m * x_stride + k]);
      acc[m][0] = _mm256_fmadd_ps(b0, a, acc[m][0]);
      acc[m][1] = _mm256_fmadd_ps(b1, a, acc[m][1]);
    }
  }
  for (int m = 0; m < M; ++m)
    for (int j = 0; j < 2; ++j)
      if (n_left > j * LANES) store(y + m * y_stride + j * LANES, n_left - j * LANES, k0 > 0, (Vector)acc[m][j]);
}

void unpack(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* block) {
  unpack_one_by_one(w, n0, n1, k0, k1, block);
}

void multiply(const float* block, const float* x, int64_t rows, int64_t x_stride, int64_t k0, int64_t k1, float* y,
              int64_t y_stride, int64_t n_left) {
  for (int64_t half = 0; half < TILE && half < n_left; half += 2 * LANES)
    abreast<4>(0, rows, [&]<int M>(int64_t row) {
      dense_many<M>(block, half, x + row * x_stride, x_stride, k0, k1, y + row * y_stride + half, y_stride,
                    n_left - half);
    });
}

}  // namespace

#ifdef __AVXVNNI__
extern constinit const Kernels avx_vnni{
    "avx-vnni", round_in_planes<BYTES>, round_one_of_many, packed_row<2>, packed_rows, dense_row, dense_rows, attend,
    improve};
#else
extern constinit const Kernels avx2{
    "avx2", round_in_planes<BYTES>, round_one_of_many, packed_row<2>, packed_rows, dense_row, dense_rows, attend,
    improve};
#endif

}  // namespace kernels

// AVX-512 with VNNI. See contract.h for the layout and the contract.
//
// Few rows, 4 bits. A byte b holds two codes, lo + 16 hi, for the inputs e (even) and o (odd). What is wanted,
// lo e + hi o, is (lo (16 e - o) + b o) / 16: the high half is never cut out. 16 e - o and o come as two planes of int8
// each, 256 * high + low with |low| <= 128, and the division is in the scale of the activations.
#include <immintrin.h>

#include "../parts/attention.h"
#include "../parts/scalars.h"
#include "../parts/search.h"
#include "../parts/tiles.h"

namespace kernels {
namespace {

constexpr int LANES = 16;
// Rows, into the L2 cache: it waits for more lines at once than the L1 cache can. One row is too short for the hardware
// to see where it leads; a prefetch cannot fault.
constexpr int AHEAD = 8;
static_assert(FINE_LIMIT <= 127 * 256 + 127);

__mmask16 first16(int64_t n) { return n >= 16 ? 0xffff : static_cast<__mmask16>((1u << n) - 1); }
__mmask64 first64(int64_t n) { return n >= 64 ? ~__mmask64{0} : (__mmask64{1} << n) - 1; }

template <Float T>
__m512 load(const void* p, int64_t i, __mmask16 mask) {
  const char* at = static_cast<const char*>(p) + i * (T == Float::f32 ? 4 : 2);
  if constexpr (T == Float::f32) return _mm512_maskz_loadu_ps(mask, at);
  const __m256i half = _mm256_maskz_loadu_epi16(mask, at);
  if constexpr (T == Float::f16) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Planes of a block of 128 inputs. 4 bits: high of 16 e - o, high of o, low of 16 e - o, low of o, 64 bytes each.
// 8 bits, for each 64: [high | low]; other widths: [even | odd], 16 bits each.
void arrange(const int16_t* codes, int bits, int8_t* planes) {
  if (bits == 4)
    for (int i = 0; i < 64; ++i) {
      split(16 * codes[2 * i] - codes[2 * i + 1], planes + i, planes + 128 + i);
      split(codes[2 * i + 1], planes + 64 + i, planes + 192 + i);
    }
  else if (bits != 8)
    arrange_pairs(codes, 32, planes), arrange_pairs(codes + 64, 32, planes + 128);
  else
    for (int half = 0; half < 2; ++half)
      for (int i = 0; i < 64; ++i) split(codes[64 * half + i], planes + 128 * half + i, planes + 128 * half + 64 + i);
}

void round_fine(const float* x, const Packed& w, const Fine& out) {
  const int64_t per_block = BLOCK / w.group;
  for (int64_t k = 0, g = 0; k < w.n_in; k += BLOCK, g += per_block) {
    int16_t codes[BLOCK] = {};
    for (int64_t i = 0; i < per_block && k + i * w.group < w.n_in; ++i) {
      int32_t sum;
      const float scale = round_group(x + k + i * w.group, w.group, row_limit(w.bits), codes + i * w.group, &sum);
      out.sums[g + i] = scale * static_cast<float>(sum);
      out.scales[g + i] = w.bits == 4 ? scale / 16 : scale;
    }
    arrange(codes, w.bits, out.planes + 2 * k);
  }
  for (int64_t g = w.groups(); g < round_up(w.groups(), GROUP_BLOCK); ++g) out.scales[g] = out.sums[g] = 0.0f;
}

// A vector of what is left of a row: 128 codes of 4 bits, 64 of 8 bits, or 64 in pairs.
template <int BITS>
__m512i load_codes(const uint8_t* at, int64_t left) {
  if constexpr (BITS == 4 || BITS == 8)
    return _mm512_maskz_loadu_epi8(first64(left), at);
  else
    return (__m512i)pairs<BITS>(at, left);
}

// A vector of codes times the planes at `p`, in 16 sums of neighbours; of 4 bits, 16 times that.
template <int BITS>
__m512i dot(__m512i b, const int8_t* p) {
  __m512i sum = _mm512_setzero_si512();
  if constexpr (BITS == 4) {
    const __m512i low = _mm512_and_si512(b, _mm512_set1_epi8(0x0f));
    sum = _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(sum, low, _mm512_loadu_si512(p)), b, _mm512_loadu_si512(p + 64));
    sum = _mm512_dpbusd_epi32(_mm512_slli_epi32(sum, 8), low, _mm512_loadu_si512(p + 128));
    return _mm512_dpbusd_epi32(sum, b, _mm512_loadu_si512(p + 192));
  }
  if constexpr (BITS != 8) {
    sum = _mm512_dpwssd_epi32(sum, (__m512i)even<BITS>((Pairs)b), _mm512_loadu_si512(p));
    return _mm512_dpwssd_epi32(sum, (__m512i)odd<BITS>((Pairs)b), _mm512_loadu_si512(p + 64));
  }
  sum = _mm512_slli_epi32(_mm512_dpbusd_epi32(sum, b, _mm512_loadu_si512(p)), 8);
  return _mm512_dpbusd_epi32(sum, b, _mm512_loadu_si512(p + 64));
}

template <Float T>
void prefetch(const void* floats, int64_t i) {
  _mm_prefetch(static_cast<const char*>(floats) + i * (T == Float::f32 ? 4 : 2), _MM_HINT_T1);
}

template <int BITS, Float T, int R>
void few(const Packed& w, const Fine& x, float* y, int64_t n) {
  constexpr int64_t CODES = BITS == 4 ? 128 : 64;  // in one vector of weights
  const int64_t groups = w.groups(), row_bytes = w.row_bytes();
  const __m128i shift = _mm_cvtsi32_si128(log2_group(w.group));
  const __m512i lane_input = _mm512_mullo_epi32(_mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0),
                                                _mm512_set1_epi32(CODES / LANES));
  __m512 acc[R], bias[R], scales[R];
#pragma GCC unroll 4  // here and below: or the sums would go through memory
  for (int r = 0; r < R; ++r) acc[r] = bias[r] = _mm512_setzero_ps();
  const uint8_t* row = w.codes + n * row_bytes;
  for (int64_t g = 0; g < groups; g += LANES) {
    const __mmask16 mask = first16(groups - g);
    const __m512 x_scales = _mm512_loadu_ps(x.scales + g), x_sums = _mm512_loadu_ps(x.sums + g);
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r) {
      prefetch<T>(w.scales, (n + r + AHEAD) * groups + g);
      prefetch<T>(w.biases, (n + r + AHEAD) * groups + g);
      scales[r] = _mm512_mul_ps(load<T>(w.scales, (n + r) * groups + g, mask), x_scales);
      bias[r] = _mm512_fmadd_ps(load<T>(w.biases, (n + r) * groups + g, mask), x_sums, bias[r]);
    }
    const int64_t start = g * w.group, end = g + LANES < groups ? start + LANES * w.group : w.n_in;
    for (int64_t k = start; k < end; k += CODES) {
      const int64_t left = (w.n_in - k) * BITS / 8;
      const __m512i group_of_lane =
          _mm512_srl_epi32(_mm512_add_epi32(lane_input, _mm512_set1_epi32(static_cast<int>(k - start))), shift);
      const uint8_t* at = row + k * BITS / 8;
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const __m512i b = load_codes<BITS>(at + r * row_bytes, left);
        _mm_prefetch(at + (r + AHEAD) * row_bytes, _MM_HINT_T1);
        acc[r] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(dot<BITS>(b, x.planes + 2 * k)),
                                 _mm512_permutexvar_ps(group_of_lane, scales[r]), acc[r]);
      }
    }
  }
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r) y[n + r] = _mm512_reduce_add_ps(_mm512_add_ps(acc[r], bias[r]));
}

// Turns rows of 16 words into columns.
void transpose(__m512i (&v)[16]) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(v[i], v[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(v[i], v[i + 1]);
  }
  for (int i = 0; i < 16; i += 4) {
    v[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
    v[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
    v[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
    v[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(v[i], v[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(v[i + 8], v[i + 12], 0xdd);
  }
  for (int i = 0; i < 8; ++i) {
    v[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    v[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// A vector of codes of 16 rows from input k on, transposed: a block is [DEPTH / 4][TILE][4]. Of 4 bits a word holds the
// codes of 8 inputs, first the even ones of them, then the odd ones: round_rows puts the activations into that order.
template <int BITS>
void unpack_codes(const Packed& w, int64_t n0, int64_t n1, int64_t k, int64_t k1, uint8_t* out) {
  const int64_t left = (k1 - k) * BITS / 8;
  __m512i v[16];
  for (int64_t i = 0; i < LANES; ++i) {
    const uint8_t* at = w.codes + (n0 + i) * w.row_bytes() + k * BITS / 8;
    if (n0 + i >= n1)
      v[i] = _mm512_setzero_si512();
    else if constexpr (BITS == 4 || BITS == 8)
      v[i] = load_codes<BITS>(at, left);
    else
      v[i] = (__m512i)widened<BITS>(at, left);
  }
  transpose(v);
  const __m512i low = _mm512_set1_epi8(0x0f);
  for (int64_t i = 0; i < 16; ++i, out += 4 * TILE * (BITS == 4 ? 2 : 1)) {
    _mm512_store_si512(out, BITS == 4 ? _mm512_and_si512(v[i], low) : v[i]);
    if constexpr (BITS == 4) _mm512_store_si512(out + 4 * TILE, _mm512_and_si512(_mm512_srli_epi16(v[i], 4), low));
  }
}

void round_rows(const float* x, const Packed& w, const Rows& out, int64_t row) {
  round_one_of_many(x, w, out, row);
  if (w.bits != 4) return;
  const __m512i order = _mm512_broadcast_i32x4(_mm_set_epi8(15, 13, 11, 9, 14, 12, 10, 8, 7, 5, 3, 1, 6, 4, 2, 0));
  for (int plane = 0; plane < out.planes; ++plane) {
    int8_t* codes = out.codes + (row * out.planes + plane) * out.stride;
    for (int64_t k = 0; k < w.n_in; k += 64)
      _mm512_storeu_si512(codes + k, _mm512_shuffle_epi8(_mm512_loadu_si512(codes + k), order));
  }
}

template <Float T>
void unpack_typed(const Packed& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, Block* block) {
  const int64_t g0 = k0 / w.group, n_groups = (k1 - k0) / w.group;
  for (int64_t half = 0; half < TILE; half += LANES) {
    with_bits(w.bits, [&]<int BITS> {
      for (int64_t k = k0; k < k1; k += BITS == 4 ? 128 : 64)
        unpack_codes<BITS>(w, n0 + half, n1, k, k1, block->codes + (k - k0) * TILE + half * 4);
    });
    for (int64_t g = 0; g < n_groups; g += LANES)
      for (int bias = 0; bias < 2; ++bias) {
        __m512i v[16];
        for (int64_t i = 0; i < LANES; ++i) {
          const int64_t n = n0 + half + i;
          v[i] = _mm512_castps_si512(
              n < n1 ? load<T>(bias ? w.biases : w.scales, n * w.groups() + g0 + g, first16(n_groups - g))
                     : _mm512_setzero_ps());
        }
        transpose(v);
        float* out = bias ? block->biases : block->scales;
        for (int64_t i = 0; i < LANES && g + i < n_groups; ++i) _mm512_store_si512(out + (g + i) * TILE + half, v[i]);
      }
  }
}

// Adds M rows times the block to y; k0 is where the block begins, which is when y is written instead. Every loop over
// the sums is unrolled, or they would not stay in registers.
template <int M, int PLANES>
void many(const Block& block, const Packed& w, const Rows& x, int64_t row, int64_t k0, int64_t k1, float* y,
          int64_t y_stride, int64_t n_tile) {
  __m512 tile[M][2];
  for (int m = 0; m < M; ++m) tile[m][0] = tile[m][1] = _mm512_setzero_ps();
  const int64_t stride = PLANES * x.stride;
  const int8_t* codes = x.codes + row * stride + k0;
  const float* scales = x.scales + row * x.group_stride + k0 / w.group;
  const float* sums = x.sums + row * x.group_stride + k0 / w.group;
  const uint8_t* b = block.codes;
  const int64_t n_groups = (k1 - k0) / w.group;
  for (int64_t g = 0; g < n_groups; ++g, b += w.group * TILE, codes += w.group) {
    __m512i acc[M][2];
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = _mm512_setzero_si512();
#pragma GCC unroll 2
    for (int plane = 0; plane < PLANES; ++plane) {
      const uint8_t* at = b;
      const int8_t* code = codes + plane * x.stride;
      for (int k = 0; k < w.group; k += 4, at += 4 * TILE, code += 4) {
        const __m512i b0 = _mm512_load_si512(at), b1 = _mm512_load_si512(at + 64);
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m) {
          int32_t four;
          std::memcpy(&four, code + m * stride, 4);
          const __m512i a = _mm512_set1_epi32(four);
          acc[m][0] = _mm512_dpbusd_epi32(acc[m][0], b0, a);
          acc[m][1] = _mm512_dpbusd_epi32(acc[m][1], b1, a);
        }
      }
      if (plane + 1 < PLANES)
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m)
          acc[m][0] = _mm512_slli_epi32(acc[m][0], 8), acc[m][1] = _mm512_slli_epi32(acc[m][1], 8);
    }
    const __m512 scale[2] = {_mm512_load_ps(block.scales + g * TILE), _mm512_load_ps(block.scales + g * TILE + LANES)};
    const __m512 bias[2] = {_mm512_load_ps(block.biases + g * TILE), _mm512_load_ps(block.biases + g * TILE + LANES)};
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const __m512 x_scale = _mm512_set1_ps(scales[m * x.group_stride + g]),
                   x_sum = _mm512_set1_ps(sums[m * x.group_stride + g]);
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        tile[m][j] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc[m][j]), _mm512_mul_ps(scale[j], x_scale), tile[m][j]);
        tile[m][j] = _mm512_fmadd_ps(bias[j], x_sum, tile[m][j]);
      }
    }
  }
  for (int j = 0; j < 2; ++j) {
    const __mmask16 mask = n_tile <= j * LANES ? __mmask16{0} : first16(n_tile - j * LANES);
    for (int m = 0; m < M; ++m) {
      float* out = y + (row + m) * y_stride + j * LANES;
      if (k0 > 0) tile[m][j] = _mm512_add_ps(tile[m][j], _mm512_maskz_loadu_ps(mask, out));
      _mm512_mask_storeu_ps(out, mask, tile[m][j]);
    }
  }
}

using Many = void (*)(const Block&, const Packed&, const Rows&, int64_t, int64_t, int64_t, float*, int64_t, int64_t);
constexpr int PACKED_ROWS = 6;  // rows abreast: 12 integer and 12 float sums stay in registers
template <int PLANES>
constexpr Many MANY[PACKED_ROWS + 1] = {nullptr,         many<1, PLANES>, many<2, PLANES>, many<3, PLANES>,
                                        many<4, PLANES>, many<5, PLANES>, many<6, PLANES>};

// Asks for the codes of the block after this one: its rows lie apart, so that the hardware does not see it coming.
void prefetch_next(const Packed& w, int64_t n, int64_t k) {
  const bool same_rows = k + DEPTH < w.n_in;
  const int64_t first = same_rows ? n : n + TILE, start = same_rows ? (k + DEPTH) * w.bits / 8 : 0;
  const int64_t end = start + DEPTH * w.bits / 8 < w.row_bytes() ? start + DEPTH * w.bits / 8 : w.row_bytes();
  for (int64_t i = first; i < first + TILE && i < w.n_out; ++i)
    for (int64_t byte = start; byte < end; byte += 64) _mm_prefetch(w.codes + i * w.row_bytes() + byte, _MM_HINT_T1);
}

void unpack(const Packed& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, Block* block) {
  prefetch_next(w, n0, k0);
  with_type(w.type, [&]<Float T> { unpack_typed<T>(w, n0, n1, k0, k1, block); });
}

void multiply(const Block& block, const Packed& w, const Rows& x, int64_t k0, int64_t k1, float* y, int64_t y_stride,
              int64_t n_left) {
  for (int64_t row = 0; row < x.rows; row += PACKED_ROWS) {
    const int64_t left = x.rows - row, n_rows = left < PACKED_ROWS ? left : PACKED_ROWS;
    (x.planes == 1 ? MANY<1> : MANY<2>)[n_rows](block, w, x, row, k0, k1, y, y_stride, n_left);
  }
}

template <Float T, int R>
void dense_few(const Dense& w, const float* x, float* y, int64_t n) {
  __m512 acc[R];
  for (int r = 0; r < R; ++r) acc[r] = _mm512_setzero_ps();
  for (int64_t k = 0; k < w.n_in; k += LANES) {
    const __mmask16 mask = first16(w.n_in - k);
    const __m512 v = _mm512_maskz_loadu_ps(mask, x + k);
    for (int r = 0; r < R; ++r) {
      prefetch<T>(w.weights, (n + r + AHEAD) * w.n_in + k);
      acc[r] = _mm512_fmadd_ps(load<T>(w.weights, (n + r) * w.n_in + k, mask), v, acc[r]);
    }
  }
  for (int r = 0; r < R; ++r) y[n + r] = _mm512_reduce_add_ps(acc[r]);
}

template <Float T>
[[gnu::noinline]] void dense_few_all(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  abreast<4>(n0, n1, [&]<int R>(int64_t n) { dense_few<T, R>(w, x, y, n); });
}

void dense_row(const Dense& w, const float* x, float* y, int64_t n0, int64_t n1) {
  with_type(w.type, [&]<Float T> { dense_few_all<T>(w, x, y, n0, n1); });
}

template <Float T>
void unpack_typed(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* out) {
  for (int64_t half = 0; half < TILE; half += LANES)
    for (int64_t k = k0; k < k1; k += LANES) {
      __m512i v[16];
      for (int64_t i = 0; i < LANES; ++i) {
        const int64_t n = n0 + half + i;
        v[i] = _mm512_castps_si512(n < n1 ? load<T>(w.weights, n * w.n_in + k, first16(k1 - k)) : _mm512_setzero_ps());
      }
      transpose(v);
      for (int64_t i = 0; i < LANES; ++i) _mm512_store_si512(out + (k - k0 + i) * TILE + half, v[i]);
    }
}

template <int M>
void dense_many(const float* block, const float* x, int64_t x_stride, int64_t k0, int64_t k1, float* y,
                int64_t y_stride, int64_t n_tile) {
  __m512 acc[M][2];
  for (int m = 0; m < M; ++m) acc[m][0] = acc[m][1] = _mm512_setzero_ps();
  for (int64_t k = k0; k < k1; ++k, block += TILE) {
    const __m512 b0 = _mm512_load_ps(block), b1 = _mm512_load_ps(block + LANES);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m) {
      const __m512 a = _mm512_set1_ps(x[m * x_stride + k]);
      acc[m][0] = _mm512_fmadd_ps(b0, a, acc[m][0]);
      acc[m][1] = _mm512_fmadd_ps(b1, a, acc[m][1]);
    }
  }
  for (int j = 0; j < 2; ++j) {
    const __mmask16 mask = n_tile <= j * LANES ? __mmask16{0} : first16(n_tile - j * LANES);
    for (int m = 0; m < M; ++m) {
      float* out = y + m * y_stride + j * LANES;
      if (k0 > 0) acc[m][j] = _mm512_add_ps(acc[m][j], _mm512_maskz_loadu_ps(mask, out));
      _mm512_mask_storeu_ps(out, mask, acc[m][j]);
    }
  }
}

constexpr int ROWS = 12;  // 24 sums in registers
using DenseMany = void (*)(const float*, const float*, int64_t, int64_t, int64_t, float*, int64_t, int64_t);
constexpr DenseMany DENSE_MANY[ROWS + 1] = {nullptr,        dense_many<1>,  dense_many<2>, dense_many<3>, dense_many<4>,
                                            dense_many<5>,  dense_many<6>,  dense_many<7>, dense_many<8>, dense_many<9>,
                                            dense_many<10>, dense_many<11>, dense_many<12>};

void unpack(const Dense& w, int64_t n0, int64_t n1, int64_t k0, int64_t k1, float* block) {
  with_type(w.type, [&]<Float T> { unpack_typed<T>(w, n0, n1, k0, k1, block); });
}

void multiply(const float* block, const float* x, int64_t rows, int64_t x_stride, int64_t k0, int64_t k1, float* y,
              int64_t y_stride, int64_t n_left) {
  for (int64_t row = 0; row < rows; row += ROWS) {
    const int64_t left = rows - row;
    DENSE_MANY[left < ROWS ? left : ROWS](block, x + row * x_stride, x_stride, k0, k1, y + row * y_stride, y_stride,
                                          n_left);
  }
}

}  // namespace

extern constinit const Kernels avx512{"avx512-vnni", round_fine, round_rows, packed_row<4>, packed_rows,
                                      dense_row,     dense_rows, attend,     improve};

}  // namespace kernels

// All rows times a block with AMX: 32 rows by 32 outputs of a group at a time in tiles of integers, which go through
// memory to meet scales and sums of floats in vectors.
#pragma once
#include "../../parts/block.h"

namespace kernels {
namespace {

constexpr int64_t TILE_ROWS = 16;                // rows, and outputs, of a tile
constexpr int64_t GROUPS_TOGETHER = 4;           // whose integers are kept, 16 KB
constexpr int64_t PLANE = 2 * TILE_ROWS * TILE;  // sums of one plane of a group

// Shapes of the tiles 0 to 3, the sums of two times two tiles; 4 and 5, activations; 6 and 7, weights.
struct alignas(64) TileShapes {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t row_bytes[16] = {64, 64, 64, 64, 0, 0, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 0, 0};

  explicit TileShapes(int64_t depth) {
    row_bytes[4] = row_bytes[5] = static_cast<uint16_t>(depth);
    rows[6] = rows[7] = static_cast<uint8_t>(depth / 4);
  }
};

// Sums of one plane of a group: of TILES * TILE_ROWS rows at x, `stride` bytes apart, and TILE outputs of a block.
template <int TILES>
void sums_of_group(const uint8_t* x, int64_t stride, const uint8_t* codes, int64_t group, int32_t* sums) {
  constexpr int ROW = TILE * sizeof(int32_t);
  _tile_zero(0);
  _tile_zero(1);
  if constexpr (TILES == 2) {
    _tile_zero(2);
    _tile_zero(3);
  }
  for (int64_t k = 0; k < group; k += 64, x += 64, codes += 64 * TILE) {
    _tile_loadd(6, codes, 4 * TILE);
    _tile_loadd(7, codes + 4 * TILE_ROWS, 4 * TILE);
    _tile_loadd(4, x, stride);
    _tile_dpbssd(0, 4, 6);
    _tile_dpbssd(1, 4, 7);
    if constexpr (TILES == 2) {
      _tile_loadd(5, x + TILE_ROWS * stride, stride);
      _tile_dpbssd(2, 5, 6);
      _tile_dpbssd(3, 5, 7);
    }
  }
  _tile_stored(0, sums, ROW);
  _tile_stored(1, sums + TILE_ROWS, ROW);
  if constexpr (TILES == 2) {
    _tile_stored(2, sums + TILE_ROWS * TILE, ROW);
    _tile_stored(3, sums + TILE_ROWS * TILE + TILE_ROWS, ROW);
  }
}

// Adds the sums of groups [g0, g1) of a block, [group][plane][32 rows][TILE], to M rows of y.
template <int M, int PLANES>
void add_sums(Block& block, const int32_t* sums, int64_t g0, int64_t g1, const float* x_scales, const float* x_sums,
              int64_t group_stride, bool first, float* y, int64_t y_stride, int64_t n_left) {
  Vector sum[M][2];
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j)
      sum[m][j] = first ? Vector{} : load_some(y + m * y_stride + j * WIDTH, n_left - j * WIDTH);
  for (int64_t g = g0; g < g1; ++g, sums += PLANES * PLANE) {
    const float *scales = block.scales + g * TILE, *biases = block.biases + g * TILE;
#pragma GCC unroll 4
    for (int m = 0; m < M; ++m) {
      const Vector x_scale = all(x_scales[m * group_stride + g]), x_sum = all(x_sums[m * group_stride + g]);
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        Ints dot = ints_at(sums + m * TILE + j * WIDTH);
        if constexpr (PLANES == 2) dot = (dot << 8) + ints_at(sums + PLANE + m * TILE + j * WIDTH);
        sum[m][j] =
            multiply_add(__builtin_convertvector(dot, Vector), vector_at(scales + j * WIDTH) * x_scale, sum[m][j]);
        sum[m][j] = multiply_add(vector_at(biases + j * WIDTH), x_sum, sum[m][j]);
      }
    }
  }
#pragma GCC unroll 4
  for (int m = 0; m < M; ++m)
#pragma GCC unroll 2
    for (int j = 0; j < 2; ++j) store(y + m * y_stride + j * WIDTH, n_left - j * WIDTH, sum[m][j]);
}

template <int PLANES, int TILES>
void rows_meet_block(Block& block, const Panels& w, const Rounded& x, int64_t row, int64_t k0, int64_t k1, float* y,
                     int64_t y_stride, int64_t n_left) {
  alignas(64) int32_t sums[GROUPS_TOGETHER * PLANE];
  constexpr int64_t STEP = GROUPS_TOGETHER / PLANES;
  const int64_t n_groups = (k1 - k0) / w.group,
                rows = x.rows - row < TILES * TILE_ROWS ? x.rows - row : TILES * TILE_ROWS;
  for (int64_t g0 = 0; g0 < n_groups; g0 += STEP) {
    const int64_t g1 = g0 + STEP < n_groups ? g0 + STEP : n_groups;
    for (int64_t g = g0; g < g1; ++g, block.upcoming.ask())
      for (int plane = 0; plane < PLANES; ++plane)
        sums_of_group<TILES>(x.codes + row * x.stride + plane * plane_of(w) + k0 + g * w.group, x.stride,
                             block.codes + g * w.group * TILE, w.group, sums + ((g - g0) * PLANES + plane) * PLANE);
    for (int64_t m = 0; m < rows;) {
      const int64_t of_group = (row + m) * x.group_stride + k0 / w.group;
      const auto add = [&]<int M>(std::integral_constant<int, M>) {
        add_sums<M, PLANES>(block, sums + m * TILE, g0, g1, x.scales + of_group, x.sums + of_group, x.group_stride,
                            k0 == 0 && g0 == 0, y + (row + m) * y_stride, y_stride, n_left);
        m += M;
      };
      if (rows - m >= 4)
        add(std::integral_constant<int, 4>());
      else
        add(std::integral_constant<int, 1>());
    }
  }
}

// Adds all rows times the block, whose first output is y[0], to y; k0 is where the block begins: y is set where that
// is 0.
template <int PLANES>
void meet_block(Block& block, const Panels& w, const Rounded& x, int64_t k0, int64_t k1, float* y, int64_t y_stride,
                int64_t n_left) {
  const TileShapes shapes(w.group < 64 ? w.group : 64);
  _tile_loadconfig(&shapes);
  for (int64_t row = 0; row < x.rows; row += 2 * TILE_ROWS)
    (x.rows - row > TILE_ROWS ? rows_meet_block<PLANES, 2> : rows_meet_block<PLANES, 1>)(block, w, x, row, k0, k1, y,
                                                                                         y_stride, n_left);
  _tile_release();
}

}  // namespace
}  // namespace kernels

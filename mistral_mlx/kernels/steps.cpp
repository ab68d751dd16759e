// The small steps between the products, where MLX's own cost more than the arithmetic: norm, rotation, gate.
#include <cmath>
#include <vector>

#include "pool.h"
#include "products.h"
#include "scalars.h"

namespace kernels {
namespace {

constexpr int64_t PIECE = 16384;  // elements worth handing to another thread

// Calls row(i) for all rows of `width` elements.
template <typename Row>
void each_row(int64_t rows, int64_t width, Row&& row) {
  const int64_t step = PIECE / width > 0 ? PIECE / width : 1;
  parallel((rows + step - 1) / step, [&](int64_t piece) {
    const int64_t end = (piece + 1) * step < rows ? (piece + 1) * step : rows;
    for (int64_t i = piece * step; i < end; ++i) row(i);
  });
}

}  // namespace

void rms_norm(const float* x, const void* weight, Float type, float eps, int64_t rows, int64_t dim, float* out) {
  each_row(rows, dim, [&](int64_t i) {
    const float* from = x + i * dim;
    float parts[16] = {}, total = 0.0f;
    int64_t k = 0;
    for (; k + 16 <= dim; k += 16)
      for (int j = 0; j < 16; ++j) parts[j] += from[k + j] * from[k + j];
    for (; k < dim; ++k) parts[0] += from[k] * from[k];
    for (const float part : parts) total += part;
    const float factor = 1.0f / std::sqrt(total / static_cast<float>(dim) + eps);
    for (k = 0; k < dim; ++k) out[i * dim + k] = from[k] * factor * load_float(weight, type, k);
  });
}

void rotate(const float* x, const int64_t (&strides)[3], int64_t batch, int64_t heads, int64_t n, int64_t head_dim, double base,
            int64_t offset, float* out) {
  const int64_t half = head_dim / 2;
  std::vector<float> angles(2 * n * half);  // cosines and sines of a position beside each other
  each_row(n, head_dim * 16, [&](int64_t p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle = static_cast<double>(offset + p) * std::pow(base, -2.0 * static_cast<double>(i) / static_cast<double>(head_dim));
      angles[2 * p * half + i] = static_cast<float>(std::cos(angle));
      angles[(2 * p + 1) * half + i] = static_cast<float>(std::sin(angle));
    }
  });
  each_row(batch * heads * n, head_dim, [&](int64_t row) {
    const int64_t p = row % n, head = row / n % heads, b = row / n / heads;
    const float* from = x + b * strides[0] + head * strides[1] + p * strides[2];
    const float *cosine = &angles[2 * p * half], *sine = cosine + half;
    float* to = out + row * head_dim;
    for (int64_t i = 0; i < half; ++i) {
      to[i] = from[i] * cosine[i] - from[i + half] * sine[i];
      to[i + half] = from[i] * sine[i] + from[i + half] * cosine[i];
    }
  });
}

void silu_times(const float* gate, const float* up, int64_t n, float* out) {
  constexpr int64_t STEP = 512;
  each_row((n + STEP - 1) / STEP, STEP * 8, [&](int64_t block) {
    const int64_t end = (block + 1) * STEP < n ? (block + 1) * STEP : n;
    for (int64_t i = block * STEP; i < end; ++i) out[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
  });
}

}  // namespace kernels

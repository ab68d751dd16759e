// The small steps between the products, see steps.h: where MLX's own cost more than the arithmetic.
#include "steps.h"

#include <cmath>

#include "../parts/vectors.h"
#include "pool.h"
#include "workspace.h"

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

// Cosines and sines of one position beside each other, [2, head_dim / 2].
void angles_of(int64_t position, const Rotation& rotation, float* out) {
  const int64_t half = rotation.head_dim() / 2;
  for (int64_t i = 0; i < half; ++i) {
    const double angle = static_cast<double>(position) * rotation.frequencies[i];
    out[i] = static_cast<float>(rotation.factor * std::cos(angle));
    out[half + i] = static_cast<float>(rotation.factor * std::sin(angle));
  }
}

// The angles of some positions, kept from one call to the next: the layers of a model ask for the same ones.
const float* angles(const std::vector<int64_t>& positions, const Rotation& rotation) {
  struct Known {
    std::vector<int64_t> positions;
    Rotation rotation;
  };
  thread_local Known known;
  const int64_t head_dim = rotation.head_dim(), n = static_cast<int64_t>(positions.size());
  float* table = reinterpret_cast<float*>(workspace<Slot::angles>(n * head_dim * static_cast<int64_t>(sizeof(float))));
  if (known.positions == positions && known.rotation == rotation) return table;
  known.positions.clear();  // until the table is whole
  each_row(n, head_dim * 16, [&](int64_t i) { angles_of(positions[i], rotation, table + i * head_dim); });
  if (!(known.rotation == rotation)) known.rotation = rotation;
  known.positions = positions;
  return table;
}

}  // namespace

void rms_norm(const float* x, const Norm& norm, int64_t rows, int64_t dim, float* out) {
  each_row(rows, dim, [&](int64_t i) {
    const float* from = x + i * dim;
    float parts[16] = {}, total = 0.0f;
    int64_t k = 0;
    for (; k + 16 <= dim; k += 16)
      for (int j = 0; j < 16; ++j) parts[j] += from[k + j] * from[k + j];
    for (; k < dim; ++k) parts[0] += from[k] * from[k];
    for (const float part : parts) total += part;
    const float factor = 1.0f / std::sqrt(total / static_cast<float>(dim) + norm.eps);
    for (k = 0; k < dim; ++k) out[i * dim + k] = from[k] * factor * load_float(norm.weight, norm.type, k);
  });
}

float QueryScale::at(int64_t position) const {
  if (beta == 0 || position < original) return 1.0f;
  return static_cast<float>(1 + beta * std::log(1 + static_cast<double>(position / original)));
}

void rotate(const float* x, const int64_t (&strides)[3], int64_t batch, int64_t heads,
            const std::vector<int64_t>& positions, const Rotation& rotation, const QueryScale& scale, float* out,
            const int64_t (&out_strides)[3]) {
  const int64_t head_dim = rotation.head_dim(), half = head_dim / 2, n = static_cast<int64_t>(positions.size());
  const float* table = angles(positions, rotation);
  each_row(batch * heads * n, head_dim, [&](int64_t row) {
    const int64_t i = row % n, head = row / n % heads, b = row / n / heads;
    const float* from = x + b * strides[0] + head * strides[1] + i * strides[2];
    const float *cosine = table + i * head_dim, *sine = cosine + half;
    float* to = out + b * out_strides[0] + head * out_strides[1] + i * out_strides[2];
    for (int64_t j = 0; j < half; ++j) {
      const float first = from[j], second = from[j + half];
      to[j] = first * cosine[j] - second * sine[j];
      to[j + half] = first * sine[j] + second * cosine[j];
    }
    const float factor = scale.at(positions[i]);
    if (factor != 1.0f)
      for (int64_t j = 0; j < head_dim; ++j) to[j] *= factor;
  });
}

void narrow(const float* x, Float type, int64_t n, void* out) {
  if (type == Float::f32) {
    std::memcpy(out, x, n * sizeof(float));
    return;
  }
  uint16_t* to = static_cast<uint16_t*>(out);
  for (int64_t i = 0; i < n; ++i) to[i] = type == Float::f16 ? float_to_half(x[i]) : float_to_bfloat(x[i]);
}

}  // namespace kernels

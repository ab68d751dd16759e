// The kernels in plain C++: what runs on any CPU, and the oracle of every other file.
#include "../parts/attention.h"
#include "../parts/rounding.h"
#include "../parts/search.h"

namespace kernels {
namespace {

// The code of input k; a code may lie across two words.
uint32_t code_at(const uint8_t* row, int bits, int64_t k) {
  const int64_t bit = k * bits;
  uint32_t window = row[bit / 8];
  if (bit % 8 + bits > 8) window |= static_cast<uint32_t>(row[bit / 8 + 1]) << 8;
  return (window >> (bit % 8)) & ((1u << bits) - 1);
}

void round(const float* x, const Packed& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  round_row<true>(x, w, out, row,
                  [&](int64_t k, const int16_t* codes) { std::memcpy(to + 2 * k, codes, BLOCK * sizeof(int16_t)); });
}

float product(const Packed& w, int64_t n, const int16_t* codes, const float* scales, const float* sums) {
  const uint8_t* row = w.codes + n * w.row_bytes();
  float y = 0.0f;
  for (int64_t g = 0; g < w.groups(); ++g) {
    int32_t dot = 0;
    for (int64_t k = g * w.group; k < (g + 1) * w.group; ++k)
      dot += (static_cast<int32_t>(code_at(row, w.bits, k)) - w.zero()) * codes[k];
    const float scale = load_float(w.scales, w.type, n * w.groups() + g);
    const float bias = std::fma(static_cast<float>(w.zero()), scale, load_float(w.biases, w.type, n * w.groups() + g));
    y = std::fma(static_cast<float>(dot), scale * scales[g], y);
    y = std::fma(bias, sums[g], y);
  }
  return y;
}

void few(const Packed& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void*) {
  for (int64_t row = 0; row < x.rows; ++row) {
    const int16_t* codes = reinterpret_cast<const int16_t*>(x.codes + row * x.stride);
    const int64_t at = row * x.group_stride;
    for (int64_t n = n0; n < n1; ++n) y[row * y_stride + n] = product(w, n, codes, x.scales + at, x.sums + at);
  }
}

void dense(const Dense& w, const DenseRows& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void*) {
  for (int64_t row = 0; row < x.rows; ++row)
    for (int64_t n = n0; n < n1; ++n) {
      float parts[16] = {};  // as wide sums as the vector kernels have: a single one would be less exact than they are
      for (int64_t k = 0; k < w.n_in; ++k)
        parts[k % 16] += load_float(w.weights, w.type, n * w.n_in + k) * load_float(x.x, x.type, row * x.stride + k);
      float total = 0.0f;
      for (float part : parts) total += part;
      y[row * y_stride + n] = total;
    }
}

}  // namespace

extern constinit const Kernels portable{"portable", 1 << 30, 2,           round, nullptr, few,
                                        nullptr,    false,   place_dense, dense, attend,  improve};

}  // namespace kernels

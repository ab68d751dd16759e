// The kernels in plain C++: what runs on any CPU, and the oracle of every other file.
#include "../parts/attention.h"
#include "../parts/gate.h"
#include "../parts/rounding.h"
#include "../parts/search.h"

namespace kernels {
namespace {

// The code of input k of output n, a code may lie across two words.
uint32_t code_at(const Panels& w, int64_t n, int64_t k) {
  const uint8_t* words = w.data + n / PANEL * w.bytes() + k / w.group * w.group_bytes() + n % PANEL * 4;
  const int64_t bit = k % w.group * w.bits, word = bit / 32, shift = bit % 32;
  const auto word_at = [=](int64_t i) {
    uint32_t value;
    std::memcpy(&value, words + i * 4 * PANEL, 4);
    return uint64_t{value};
  };
  const uint64_t window = word_at(word) | (shift + w.bits > 32 ? word_at(word + 1) << 32 : 0);
  return static_cast<uint32_t>(window >> shift) & ((1u << w.bits) - 1);
}

void round(const float* x, const Panels& w, const Rounded& out, int64_t row) {
  uint8_t* to = out.codes + row * out.stride;
  round_row<true>(x, w, out, row,
                  [&](int64_t k, const int16_t* codes) { std::memcpy(to + 2 * k, codes, BLOCK * sizeof(int16_t)); });
}

float product(const Panels& w, int64_t n, const int16_t* codes, const float* scales, const float* sums) {
  float y = 0.0f;
  for (int64_t g = 0; g < w.groups(); ++g) {
    int32_t dot = 0;
    for (int64_t k = g * w.group; k < (g + 1) * w.group; ++k)
      dot += (static_cast<int32_t>(code_at(w, n, k)) - w.zero()) * codes[k];
    const uint8_t* floats = w.data + n / PANEL * w.bytes() + g * w.group_bytes() + w.code_bytes();
    const float scale = load_float(floats, w.type, n % PANEL);
    const float bias = std::fma(static_cast<float>(w.zero()), scale, load_float(floats, w.type, PANEL + n % PANEL));
    y = std::fma(static_cast<float>(dot), scale * scales[g], y);
    y = std::fma(bias, sums[g], y);
  }
  return y;
}

void few(const Panels& w, const Rounded& x, float* y, int64_t y_stride, int64_t n0, int64_t n1, void*) {
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

extern constinit const Kernels portable{"portable", 1 << 30,     2,     round,  nullptr,    few,    nullptr,
                                        false,      place_dense, dense, attend, silu_times, improve};

}  // namespace kernels
